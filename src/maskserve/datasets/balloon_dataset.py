"""A data set of rendered balloon photos, whose masks are exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image as PillowImage

from maskserve.core.categories import Categories
from maskserve.core.errors import ParameterError
from maskserve.core.masks import encode_rle
from maskserve.datasets.balloon_photo import render_balloon_photo
from maskserve.datasets.summary import SplitSummary, summarise_split
from maskserve.datasets.target import new_folder
from maskserve.datasets.types import Annotation, Dataset, Sample
from maskserve.datasets.writing import write_dataset

__all__ = ["write_balloon_dataset"]

_MOST_INSTANCES = 30
_SPREAD = 0.8
"""Standard deviation of the logarithm of the number of balloons."""

_PORTRAITS = 0.35
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class _Job:
    """Photo ``number`` of a data set; all that is random about it follows from this."""

    folder: Path
    number: int
    size: tuple[int, int]
    instances: int
    seed: int


def write_balloon_dataset(
    root: Path,
    *,
    photos: int,
    seed: int,
    size: tuple[int, int] = (480, 640),
    instances: int = 4,
    format: str = "coco",  # noqa: A002 -- the field's word, and the flag's
    processes: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> SplitSummary:
    """Render balloons as :func:`maskserve.datasets.balloon_photo.render_balloon_photo` does.

    How many are in a photo varies log-normally, as in the balloon data set: mostly a few, at
    times very many. Photos are JPEG of quality 90. Either all of it is written or nothing.

    The same seed gives the same files, in however many processes, with the same versions of
    NumPy, OpenCV and Pillow on the same kind of processor; and a data set with more photos begins
    with those of a smaller one.

    Args:
        root: A folder that is not there yet, or empty.
        photos: How many; the data set is not divided.
        seed: Another seed gives other photos.
        size: (height, width) of a photo; about a third of them have the sides exchanged.
        instances: Balloons that are drawn in the median photo; there are 1 to 30 in each.
        format: One of ``WRITABLE_FORMAT_NAMES``. COCO keeps the masks as they are.
        processes: How many render at a time. They are spawned: a script that asks for several
            must be importable without running.
        on_progress: Is told how many photos are ready, and of how many.

    Returns:
        What is in it.

    Raises:
        ParameterError: Numbers are out of range, or there is no such format.
        OutputError: ``root`` holds something, or cannot be written.
    """
    for name, value, low in (("photos", photos, 1), ("instances", instances, 1), ("seed", seed, 0)):
        if value < low:
            raise ParameterError(f"“{name}” must be at least {low}, not {value}.")
    if min(size) < 64:
        raise ParameterError(f"Photos of {size[0]}x{size[1]} pixels are too small: 64 at least.")
    with new_folder(root) as folder, TemporaryDirectory(dir=folder.parent) as rendered:
        jobs = [_Job(Path(rendered), n, size, instances, seed) for n in range(photos)]
        samples: list[Sample] = []
        for sample in _render_all(jobs, processes):
            samples.append(sample)
            if on_progress is not None:
                on_progress(len(samples), photos)
        samples.sort(key=lambda sample: sample.image_id)
        dataset = Dataset(root.name, Categories.from_names(["balloon"]), tuple(samples))
        write_dataset(folder, {None: dataset}, format=format)
    return summarise_split(None, dataset)


def _render_all(jobs: list[_Job], processes: int) -> Iterator[Sample]:
    """The photos of all jobs, in the order in which they are ready."""
    if processes == 1:
        yield from map(_render, jobs)
        return
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    )
    try:
        for future in as_completed([pool.submit(_render, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _render(job: _Job) -> Sample:
    rng = np.random.default_rng((job.seed, job.number))
    size = job.size[::-1] if rng.random() < _PORTRAITS else job.size
    count = int(np.clip(np.exp(rng.normal(np.log(job.instances), _SPREAD)), 1, _MOST_INSTANCES))
    image, masks = render_balloon_photo(size=size, count=count, seed=int(rng.integers(2**32)))
    path = job.folder / f"balloons_{job.number:05d}.jpg"
    PillowImage.fromarray(image).save(path, quality=_JPEG_QUALITY)
    annotations = tuple(Annotation(0, rle=encode_rle(mask)) for mask in masks)
    return Sample(path, job.number + 1, size, annotations)
