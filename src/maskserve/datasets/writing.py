"""The exit: data sets become a folder in the format that another tool asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from maskserve.core.errors import ParameterError
from maskserve.datasets.coco import write_coco
from maskserve.datasets.mask_folders import write_mask_folders
from maskserve.datasets.target import Target, new_folder
from maskserve.datasets.types import Dataset
from maskserve.datasets.via import write_via
from maskserve.datasets.yolo import write_yolo

__all__ = ["WRITABLE_FORMAT_NAMES", "write_dataset"]

_WRITERS: dict[str, Callable[[Target, Mapping[str | None, Dataset]], None]] = {
    "coco": write_coco,
    "via": write_via,
    "yolo": write_yolo,
    "masks": write_mask_folders,
}

WRITABLE_FORMAT_NAMES = tuple(_WRITERS)
"""What ``format`` of :func:`write_dataset` may be; a part of what ``load_dataset`` reads."""


def write_dataset(
    root: Path,
    splits: Mapping[str | None, Dataset],
    *,
    format: str,  # noqa: A002 -- the field's word, and the flag's
    link: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write a complete new data set, photos included.

    Either all of it is written or nothing. Outlines and masks stay in pixels of the upright
    photo, and photos keep their EXIF orientation.

    Args:
        root: A folder that is not there yet, or empty.
        splits: As :func:`maskserve.datasets.load_splits` gives them; the key None is for a data
            set that is not divided.
        format: One of :data:`WRITABLE_FORMAT_NAMES`.
        link: Make hard links to the photos instead of copies; on one disk only.
        on_progress: Is told after each photo how many are written, and of how many.

    Returns:
        What had to change for the format: how often, by a phrase in the singular such as
        ``crowd region left out``. What every file of a format loses is in its writer's
        documentation.

    Raises:
        ParameterError: There is no such format, or it cannot hold these splits or classes.
        OutputError: ``root`` holds something, or cannot be written.
    """
    if format not in _WRITERS:
        raise ParameterError(
            f"The format “{format}” cannot be written.",
            hint=f"Known: {', '.join(WRITABLE_FORMAT_NAMES)}.",
        )
    total = sum(map(len, splits.values()))
    photos = count(1)

    def count_photo() -> None:
        if on_progress is not None:
            on_progress(next(photos), total)

    with new_folder(root) as folder:
        target = Target(folder, link, count_photo)
        _WRITERS[format](target, splits)
    return {loss: times for loss, times in target.losses.items() if times}
