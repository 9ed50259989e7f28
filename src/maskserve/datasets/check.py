"""Everything that is wrong with a folder of annotated photos, found in one go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path

from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.loading import available_splits, read_dataset
from maskserve.datasets.photos import require_decodable
from maskserve.datasets.source import place_in
from maskserve.datasets.types import Sample

__all__ = ["check_dataset"]


def check_dataset(
    root: Path,
    *,
    split: str | None = None,
    format: str | None = None,  # noqa: A002
    class_attribute: str | None = None,
) -> list[DatasetProblem]:
    """Look for everything that would stop or spoil training and evaluation.

    Beside all that :func:`maskserve.datasets.load_dataset` refuses, these are problems: photos
    whose pixels cannot be decoded, instances annotated twice, the same photo twice (worst of
    all in two splits: then the model is tested on what it has learned by heart), and a split in
    which nothing is annotated.

    Args:
        root: The data set's folder.
        split: The only split to look at; by default all of them.
        format: As for ``load_dataset``.
        class_attribute: As for ``load_dataset``.

    Returns:
        The problems, split by split; none is the good answer.

    Raises:
        DatasetError: There are no annotations of a known format.
    """
    splits = (split,) if split else available_splits(root, format=format) or (None,)
    problems: list[DatasetProblem] = []
    first_places: dict[str, str] = {}
    for name in splits:
        try:
            dataset, found = read_dataset(
                root, split=name, format=format, class_attribute=class_attribute
            )
        except DatasetError as error:
            problems.append(DatasetProblem(name or root.name, str(error)))
            continue
        problems += found
        if not any(sample.annotations for sample in dataset.samples):
            problems.append(DatasetProblem(name or root.name, "has no sound annotation"))
        for sample in dataset.samples:
            place = place_in(root, sample.image_path)
            flaws = _flaws_of(sample, place, first_places)
            problems += [DatasetProblem(place, flaw) for flaw in flaws]
    return problems


def _flaws_of(sample: Sample, place: str, first_places: dict[str, str]) -> Iterator[str]:
    """What is wrong with one photo; remembers it in ``first_places`` by the digest of its file."""
    try:
        require_decodable(sample.image_path)
    except FlawError as error:
        yield str(error)
        return
    with sample.image_path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    first = first_places.setdefault(digest, place)
    if first != place:
        yield f"is the same photo as {first}"
    masks = Counter(
        (annotation.class_index, annotation.to_rle(sample.image_size)["counts"])
        for annotation in sample.annotations
    )
    for times in masks.values():
        if times > 1:
            yield f"has an instance that is annotated {times} times"
