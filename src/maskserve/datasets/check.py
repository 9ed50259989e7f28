"""Everything that is wrong with a folder of annotated photos, found in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import file_digest
from itertools import combinations
from pathlib import Path

from pycocotools import mask as coco_mask

from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.datasets.crossings import find_crossing
from maskserve.datasets.duplicates import Fingerprint, find_alike, fingerprint
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.loading import available_splits, read_dataset
from maskserve.datasets.polygons import FittedPolygons
from maskserve.datasets.source import place_in
from maskserve.datasets.summary import SplitSummary, summarise_split
from maskserve.datasets.types import Annotation, Dataset, Sample

__all__ = ["CheckReport", "check_dataset"]

_OVERSHOOT_PX = 1.0
"""So far beyond its photo an outline may reach before it is worth a word."""

_SAME_INSTANCE_IOU = 0.9

_LEAK = ": a leak between splits, which makes results look better than they are"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What :func:`check_dataset` found.

    Attributes:
        errors: What has to be mended: training refuses it, or learns or measures wrongly.
        warnings: What is worth a look, and may be meant.
        splits: What is there, split by split; without splits that cannot be read.
    """

    errors: tuple[DatasetProblem, ...]
    warnings: tuple[DatasetProblem, ...]
    splits: tuple[SplitSummary, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Photo:
    """A photo that was decoded.

    Attributes:
        place: As problems name it.
        digest: SHA-256 of its file.
    """

    place: str
    split: str | None
    digest: str
    fingerprint: Fingerprint


def check_dataset(
    root: Path,
    *,
    split: str | None = None,
    format: str | None = None,  # noqa: A002
    class_attribute: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Look for everything that would stop or spoil training and evaluation.

    Errors are all that :func:`maskserve.datasets.load_dataset` refuses, photos whose pixels
    cannot be decoded, a split in which nothing is annotated, an instance that is annotated twice
    with the same mask, a file that is there twice, and a photo of one split that is in another
    one as well, be it saved again, resized or mirrored: then the model is tested on what it has
    learned by heart.

    Warnings are outlines that cross themselves or reach more than a pixel beyond their photo,
    two masks of a class that are nearly the same (IoU above 0.9), and other photos that look the
    same though their files differ. Of each photo only the earlier one most like it is named.

    Args:
        root: The data set's folder.
        split: The only split to look at; by default all of them.
        format: As for ``load_dataset``.
        class_attribute: As for ``load_dataset``.
        on_progress: Is told how many photos have been looked at, and how many there are.

    Raises:
        DatasetError: There are no annotations of a known format.
    """
    splits = (split,) if split else available_splits(root, format=format) or (None,)
    errors: list[DatasetProblem] = []
    warnings: list[DatasetProblem] = []
    datasets: dict[str | None, Dataset] = {}
    for name in splits:
        try:
            datasets[name], found = read_dataset(
                root, split=name, format=format, class_attribute=class_attribute
            )
        except DatasetError as error:
            errors.append(DatasetProblem(name or root.name, str(error)))
            continue
        errors += found
        if not any(sample.annotations for sample in datasets[name].samples):
            errors.append(DatasetProblem(name or root.name, "has no sound annotation"))

    todo = [(name, sample) for name, dataset in datasets.items() for sample in dataset.samples]
    photos: list[_Photo] = []
    with ThreadPoolExecutor() as threads:
        results = threads.map(lambda entry: _look_at(root, *entry), todo)
        for done, ((_, sample), result) in enumerate(zip(todo, results, strict=True), start=1):
            if isinstance(result, DatasetProblem):
                errors.append(result)
            else:
                photos.append(result)
                same, doubtful = _check_instances(sample, result.place)
                errors += same
                warnings += doubtful
            if on_progress is not None:
                on_progress(done, len(todo))
    same, doubtful = _compare(photos)
    return CheckReport(
        errors=(*errors, *same),
        warnings=(*warnings, *doubtful),
        splits=tuple(summarise_split(name, dataset) for name, dataset in datasets.items()),
    )


def _look_at(root: Path, split: str | None, sample: Sample) -> _Photo | DatasetProblem:
    place = place_in(root, sample.image_path)
    try:
        print_ = fingerprint(sample.image_path)
    except FlawError as error:
        return DatasetProblem(place, str(error))
    with sample.image_path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return _Photo(place, split, digest, print_)


def _compare(photos: Sequence[_Photo]) -> tuple[list[DatasetProblem], list[DatasetProblem]]:
    """Photos that are there twice for sure, and such that may be."""
    originals: list[_Photo] = []
    by_digest: dict[str, _Photo] = {}
    same: list[DatasetProblem] = []
    for photo in photos:
        first = by_digest.setdefault(photo.digest, photo)
        if first is photo:
            originals.append(photo)
        else:
            leak = _LEAK if first.split != photo.split else ""
            same.append(DatasetProblem(photo.place, f"is the same file as {first.place}{leak}"))
    alike: list[DatasetProblem] = []
    for likeness in find_alike([photo.fingerprint for photo in originals]):
        first, second = originals[likeness.first], originals[likeness.second]
        is_leak = first.split != second.split
        how = " mirrored" if likeness.is_mirrored else ""
        if likeness.is_copy:
            what = f"is a copy of {first.place}{how}, saved anew{_LEAK if is_leak else ''}"
        else:
            what = f"looks like {first.place}{how}{', which is in another split' * is_leak}"
        problem = DatasetProblem(second.place, what)
        (same if likeness.is_copy and is_leak else alike).append(problem)
    return same, alike


def _check_instances(
    sample: Sample, place: str
) -> tuple[list[DatasetProblem], list[DatasetProblem]]:
    """Instances annotated twice, and outlines that are doubtful."""
    same, doubtful = [], []
    for number, annotation in enumerate(sample.annotations, 1):
        for what in _doubts_about(annotation):
            where = f"{place}, {_name_instance(number, annotation, sample)}"
            doubtful.append(DatasetProblem(where, what))
    for number, other, iou in _overlapping(sample):
        where = f"{place}, {_name_instance(other, sample.annotations[other - 1], sample)}"
        if iou == 1:
            same.append(DatasetProblem(where, f"has the same mask as instance {number}"))
        else:
            what = f"is nearly the same as instance {number} (IoU {iou:.2f})"
            doubtful.append(DatasetProblem(where, what))
    return same, doubtful


def _doubts_about(annotation: Annotation) -> Iterator[str]:
    polygons = annotation.polygons
    if isinstance(polygons, FittedPolygons) and polygons.overshoot_px > _OVERSHOOT_PX:
        yield f"reaches {polygons.overshoot_px:.1f} px beyond the photo; that part is cut off"
    for crossing in map(find_crossing, polygons):
        if crossing is not None:
            yield f"has an outline that crosses itself at x={crossing[0]:.1f}, y={crossing[1]:.1f}"


def _overlapping(sample: Sample) -> Iterator[tuple[int, int, float]]:
    """Pairs of instances of a class, numbered from 1, that are (nearly) the same, and their IoU."""
    by_class: dict[int, list[int]] = {}
    for number, annotation in enumerate(sample.annotations, 1):
        if not annotation.is_crowd:
            by_class.setdefault(annotation.class_index, []).append(number)
    for numbers in by_class.values():
        rles = [sample.annotations[n - 1].to_rle(sample.image_size) for n in numbers]
        ious = coco_mask.iou(rles, rles, [False] * len(rles))
        for i, j in combinations(range(len(rles)), 2):
            if ious[i, j] > _SAME_INSTANCE_IOU:
                yield numbers[i], numbers[j], float(ious[i, j])


def _name_instance(number: int, annotation: Annotation, sample: Sample) -> str:
    """Which one is meant: the readers keep no numbers, but anybody can find a place."""
    left, top, right, bottom = annotation.box_xyxy(sample.image_size).astype(int).tolist()
    return f"instance {number} at x {left}–{right}, y {top}–{bottom}"
