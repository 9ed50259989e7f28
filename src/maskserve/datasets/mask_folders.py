"""Mask folders: for each photo a folder with the photo and one mask for each instance.

The layout of the 2018 Data Science Bowl: ``ID/images/ID.png`` and ``ID/masks/*.png``.
https://www.kaggle.com/competitions/data-science-bowl-2018/data
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetProblem, ParameterError
from maskserve.core.masks import encode_rle
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import read_mask, read_upright_size
from maskserve.datasets.source import AnnotationFiles, Source
from maskserve.datasets.target import Target
from maskserve.datasets.types import Annotation, Dataset, Sample

__all__ = ["find_mask_folders", "read_mask_folders", "write_mask_folders"]

_PHOTOS, _MASKS = "images", "masks"


def find_mask_folders(root: Path) -> AnnotationFiles:
    """A folder with mask folders in it; or folders directly below it with such, its splits."""
    folders = (root, *_subfolders(root))
    return {
        None if folder == root else folder.name: folder
        for folder in folders
        if any(_is_whole(entry) for entry in _subfolders(folder))
    }


def read_mask_folders(source: Source) -> tuple[Dataset, list[DatasetProblem]]:
    """Read photos and masks; all instances are of the one class ``source.class_name``.

    A mask is a PNG as large as the upright photo, of one value on a black ground. Masks may
    overlap. A photo without any instance has an empty folder of masks.

    Returns:
        All photos and masks that are sound, and one problem for each that is not.
    """
    samples: list[Sample] = []
    problems: list[DatasetProblem] = []
    for entry in _subfolders(source.file):
        if not (entry / _PHOTOS).is_dir() and not (entry / _MASKS).is_dir():
            continue
        path = entry
        try:
            masks = _masks_of(entry)
            path = _photo_of(entry)
            size = read_upright_size(path)
        except FlawError as error:
            problems.append(DatasetProblem(source.place_of(path), str(error)))
            continue
        annotations = []
        for mask in masks:
            try:
                annotations.append(_read_annotation(mask, size))
            except FlawError as error:
                problems.append(DatasetProblem(source.place_of(mask), str(error)))
        samples.append(Sample(path, len(samples) + 1, size, tuple(annotations)))
    categories = Categories.from_names([source.class_name])
    return Dataset(source.name, categories, tuple(samples)), problems


def write_mask_folders(target: Target, splits: Mapping[str | None, Dataset]) -> None:
    """Write ``SPLIT/ID/images/ID.*`` and ``SPLIT/ID/masks/*.png``, where ID is the photo's name.

    Masks are exact to the pixel. Lost are outlines, crowd regions, the name of the class and
    classes without any instance.

    Raises:
        ParameterError: There are instances of several classes.
    """
    used = target.keep_used_classes(splits.values())
    if len(used) > 1:
        raise ParameterError(
            f"Mask folders hold one class, but there are instances of {len(used)}: "
            f"{', '.join(used[:5])}{', …' if len(used) > 5 else ''}.",
            hint="Take one class of the data set first (maskserve data subset).",
        )
    for name in used:
        target.losses[f"class name left out, to be given at reading: {name}"] = 1
    for split, dataset in splits.items():
        for sample, name in target.name_photos(dataset.samples):
            entry = target.root / (split or "") / Path(name).stem
            target.add_photo(sample, entry / _PHOTOS / name)
            (entry / _MASKS).mkdir()
            for number, annotation in enumerate(target.single_instances(sample), 1):
                target.losses["outline turned into whole pixels"] += bool(annotation.polygons)
                grey = annotation.mask(sample.image_size).astype(np.uint8) * np.uint8(255)
                PillowImage.fromarray(grey).save(entry / _MASKS / f"{number:05}.png")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _is_whole(entry: Path) -> bool:
    return (entry / _PHOTOS).is_dir() and (entry / _MASKS).is_dir()


def _photo_of(entry: Path) -> Path:
    photos = _files_in(entry / _PHOTOS)
    if len(photos) != 1:
        raise FlawError(f"has {len(photos)} photos in “{_PHOTOS}”, but there must be one")
    return photos[0]


def _masks_of(entry: Path) -> list[Path]:
    if not (entry / _MASKS).is_dir():
        raise FlawError(f"has no folder “{_MASKS}”; make an empty one if the photo has no instance")
    return _files_in(entry / _MASKS)


def _files_in(folder: Path) -> list[Path]:
    """What is in a folder, sorted, but for files such as ``.DS_Store``."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def _read_annotation(path: Path, size: tuple[int, int]) -> Annotation:
    mask = read_mask(path)
    if mask.shape != size:
        raise FlawError(
            f"has {mask.shape[1]}x{mask.shape[0]} pixels, but its upright photo {size[1]}x{size[0]}"
        )
    if not mask.any():
        raise FlawError("is a mask without any pixel")
    return Annotation(0, rle=encode_rle(mask))
