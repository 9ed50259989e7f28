"""The entrance: a folder becomes a data set, whatever format its annotations have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.datasets.coco import find_coco, read_coco
from maskserve.datasets.label_studio import find_label_studio, read_label_studio
from maskserve.datasets.labelme import find_labelme, read_labelme
from maskserve.datasets.mask_folders import find_mask_folders, read_mask_folders
from maskserve.datasets.source import AnnotationFiles, Source, is_split_name
from maskserve.datasets.types import Dataset
from maskserve.datasets.via import find_via, read_via
from maskserve.datasets.yolo import find_yolo, read_yolo

__all__ = ["FORMAT_NAMES", "available_splits", "load_dataset", "load_splits", "read_dataset"]


@dataclass(frozen=True, slots=True)
class _Format:
    find: Callable[[Path], AnnotationFiles]
    read: Callable[[Source], tuple[Dataset, list[DatasetProblem]]]
    layout: str


# Tried in this order. COCO's files can be large, and its reader knows them by their names.
_FORMATS = {
    "coco": _Format(
        find_coco, read_coco, "annotations/instances_SPLIT.json, SPLIT.json or instances.json"
    ),
    "via": _Format(find_via, read_via, "SPLIT/via_region_data.json beside its photos"),
    "yolo": _Format(find_yolo, read_yolo, "data.yaml with folders images and labels"),
    "masks": _Format(
        find_mask_folders, read_mask_folders, "SPLIT/ID/images/ID.png and SPLIT/ID/masks/*.png"
    ),
    "label-studio": _Format(
        find_label_studio, read_label_studio, "an export as JSON or JSON-MIN beside its photos"
    ),
    "labelme": _Format(find_labelme, read_labelme, "SPLIT/*.json, one for each photo"),
}

FORMAT_NAMES = tuple(_FORMATS)
"""What ``format`` may be."""


def load_dataset(
    root: Path,
    *,
    split: str | None = None,
    format: str | None = None,  # noqa: A002 -- the field's word, and the flag's
    class_name: str | None = None,
    class_attribute: str | None = None,
) -> Dataset:
    """Read a folder of annotated photos.

    Args:
        root: The data set's folder, or that of one split, whose classes then are the only ones.
        split: Such as ``train``; None if ``root`` holds the annotations directly.
        format: One of :data:`FORMAT_NAMES`; recognised by the folder's content by default.
        class_name: Name of the class in VIA files that name none and in mask folders; the
            folder's by default.
        class_attribute: The region attribute of VIA files that holds the class, where several
            are filled in.

    Raises:
        DatasetError: The format or the split is not there, or something is wrong with photos
            or annotations; then all of it is listed in ``problems``.
    """
    dataset, problems = read_dataset(
        root, split=split, format=format, class_name=class_name, class_attribute=class_attribute
    )
    if problems:
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DatasetError(f"The data set “{dataset.name}” has {many}:", problems=problems)
    if not dataset.samples:
        raise DatasetError(f"The data set “{dataset.name}” in {root} has no photo.")
    return dataset


def load_splits(
    root: Path,
    *,
    split: str | None = None,
    format: str | None = None,  # noqa: A002
    class_name: str | None = None,
    class_attribute: str | None = None,
) -> dict[str | None, Dataset]:
    """Read all splits of a data set, or only ``split``, each as :func:`load_dataset` does.

    Returns:
        The data sets by split; by None alone if the data set is not divided.

    Raises:
        DatasetError: As ``load_dataset``.
    """
    splits = (split,) if split else available_splits(root, format=format) or (None,)
    return {
        name: load_dataset(
            root, split=name, format=format, class_name=class_name, class_attribute=class_attribute
        )
        for name in splits
    }


def read_dataset(
    root: Path,
    *,
    split: str | None = None,
    format: str | None = None,  # noqa: A002
    class_name: str | None = None,
    class_attribute: str | None = None,
) -> tuple[Dataset, list[DatasetProblem]]:
    """As :func:`load_dataset`, but gives problems back beside all that is sound.

    Raises:
        DatasetError: There is nothing to read: the format or the split is not there, or the
            annotation file is broken as a whole.
    """
    chosen, files = _locate(root, format)
    if split not in files:
        raise _missing_split(root, split, files)
    # Not resolved if it can be helped: a link is named as its owner likes it.
    path = root.resolve() if ".." in root.parts else root.absolute()
    folder = path.parent.name if is_split_name(path.name) else path.name
    name = folder if split is None else f"{folder} {split}"
    return chosen.read(Source(name, root, split, files, class_name or folder, class_attribute))


def available_splits(root: Path, *, format: str | None = None) -> tuple[str, ...]:  # noqa: A002
    """Names of the splits in a data set's folder, sorted; none if it is not divided.

    Raises:
        DatasetError: The folder has no annotations of a known format.
    """
    return tuple(sorted(split for split in _locate(root, format)[1] if split is not None))


def _locate(root: Path, format_name: str | None) -> tuple[_Format, AnnotationFiles]:
    """The format of a folder and its annotation files."""
    if root.is_file():
        raise DatasetError(
            f"{root} is a file.", hint="Name the folder that holds annotations and photos."
        )
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.")
    if format_name is not None and format_name not in _FORMATS:
        raise DatasetError(
            f"There is no format “{format_name}”.", hint=f"Known: {', '.join(FORMAT_NAMES)}."
        )
    candidates = list(_FORMATS) if format_name is None else [format_name]
    for candidate in candidates:
        files = _FORMATS[candidate].find(root)
        if files:
            return _FORMATS[candidate], files
    expected = "; ".join(f"{name}: {_FORMATS[name].layout}" for name in candidates)
    wanted = "a known format" if format_name is None else f"the format “{format_name}”"
    raise DatasetError(
        f"{root} holds no annotations of {wanted}. It holds {_listing(root)}.",
        hint=f"Expected one of these: {expected}.",
    )


def _missing_split(root: Path, split: str | None, files: AnnotationFiles) -> DatasetError:
    splits = ", ".join(sorted(name for name in files if name is not None))
    if split is None:
        return DatasetError(f"{root} is divided into {splits}.", hint="Name one of these splits.")
    if not splits:
        return DatasetError(
            f"{root} is not divided, so there is no split “{split}”.",
            hint="Leave the split out, or divide the data set first.",
        )
    return DatasetError(f"{root} has no split “{split}”.", hint=f"It has: {splits}.")


def _listing(root: Path, shown: int = 8) -> str:
    names = sorted(child.name + ("/" if child.is_dir() else "") for child in root.iterdir())
    if not names:
        return "nothing"
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
