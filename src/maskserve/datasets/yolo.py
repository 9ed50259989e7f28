"""Segmentation labels of Ultralytics YOLO: https://docs.ultralytics.com/datasets/segment/.

``data.yaml`` names the classes and a folder of photos for each split. Each photo has a text
file, in the same place below ``labels`` as the photo has below ``images``, with one line for each
instance: number of the class, then x and y of each vertex as shares of the photo's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, DatasetProblem, ParameterError
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import listed_photos, read_upright_size
from maskserve.datasets.polygons import fit_polygons
from maskserve.datasets.source import AnnotationFiles, Source, is_split_name, usual_split_name
from maskserve.datasets.target import Target
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample

__all__ = ["find_yolo", "read_yolo", "write_yolo"]

_FILE_NAME = "data.yaml"
_PHOTOS, _LABELS = "images", "labels"

_TOLERANCE = 0.01
"""How far beyond 0..1 a coordinate may lie, as for Ultralytics; it is clipped to the photo."""

_DECIMALS_PX = 6
"""A vertex that was at 10.5 before it was divided by the photo's width is there again."""


def find_yolo(root: Path) -> AnnotationFiles:
    """The folders of photos that ``data.yaml`` names; without that file there are none."""
    path = root / _FILE_NAME
    if not path.is_file():
        return {}
    settings = _read_settings(path)
    return {
        str(key): _find_folder(root, settings.get("path"), value, where=f"{path}: “{key}”")
        for key, value in settings.items()
        if is_split_name(str(key)) and value
    }


def read_yolo(source: Source) -> tuple[Dataset, list[DatasetProblem]]:
    """Read all photos of a split and the labels that belong to them.

    A photo whose label file is empty or missing has no instance. Outlines are in pixels of the
    upright photo, as Ultralytics reads photos, too.

    Returns:
        All photos and lines that are sound, and one problem for each that is not. Labels of
        boxes are none that masks could be learned from.

    Raises:
        DatasetError: ``data.yaml`` is not of YOLO's shape, or the folder of photos is missing.
    """
    settings_path = source.root / _FILE_NAME
    categories = _read_categories(_read_settings(settings_path), settings_path)
    if not source.file.is_dir():
        raise DatasetError(f"There is no folder {source.file}, which {settings_path} names.")
    samples: list[Sample] = []
    problems: list[DatasetProblem] = []
    photos = listed_photos(source.file)
    for path in photos:
        labels = _labels_of(path)
        where = source.place_of(path)
        try:
            size = read_upright_size(path)
            where = source.place_of(labels)
            lines = _read_lines(labels)
        except FlawError as error:
            problems.append(DatasetProblem(where, str(error)))
            continue
        annotations = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                annotations.append(_read_annotation(line, categories, size))
            except FlawError as error:
                problems.append(DatasetProblem(f"{where}, line {number}", str(error)))
        samples.append(Sample(path, len(samples) + 1, size, tuple(annotations)))
    problems += [
        DatasetProblem(source.place_of(path), f"has no photo in {source.place_of(source.file)}")
        for path in _labels_without_photo(source.file, photos)
    ]
    return Dataset(source.name, categories, tuple(samples)), problems


def write_yolo(target: Target, splits: Mapping[str | None, Dataset]) -> None:
    """Write ``data.yaml``, ``images/SPLIT`` and ``labels/SPLIT``.

    Vertices keep six decimals of a pixel. Lost are crowd regions, masks, the parts of instances
    and COCO's ids. What is not divided becomes the split ``train``.

    Raises:
        ParameterError: YOLO has no such split.
    """
    names = list(dict.fromkeys(name for d in splits.values() for name in d.categories.names))
    keys = _keys_of(splits)
    for key, dataset in zip(keys, splits.values(), strict=True):
        for sample, name in target.name_photos(dataset.samples):
            photo = target.root / _PHOTOS / key / name
            target.add_photo(sample, photo)
            lines = [
                _to_line(names.index(dataset.categories.names[a.class_index]), outline, sample)
                for a, outline in target.outlines(sample)
            ]
            labels = target.root / _LABELS / key / f"{photo.stem}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = {key: f"{_PHOTOS}/{key}" for key in keys} | {"names": dict(enumerate(names))}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    (target.root / _FILE_NAME).write_text(text, encoding="utf-8")


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DatasetError(f"{path} is not YAML: {error}.") from None
    if not isinstance(settings, dict) or "names" not in settings:
        raise DatasetError(
            f"{path} does not describe a YOLO data set.",
            hint="It must have “names”, the classes, and “train” and “val”, folders of photos.",
        )
    return settings


def _read_categories(settings: Mapping[str, Any], path: Path) -> Categories:
    names = settings["names"]
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(numbered, dict) or sorted(numbered, key=str) != sorted(
        range(len(numbered)), key=str
    ):
        raise DatasetError(f"{path}: “names” must be a list, or number the classes from 0 on.")
    try:
        return Categories.from_names(str(numbered[index]) for index in range(len(numbered)))
    except ValueError as error:
        raise DatasetError(f"The classes of {path} are not valid: {error}.") from None


def _find_folder(root: Path, base: object, value: object, *, where: str) -> Path:
    """The folder that a split names; where it is looked for first if it is nowhere."""
    if not isinstance(value, str) or value.endswith(".txt"):
        raise DatasetError(f"{where} must be one folder of photos, not {value!r}.")
    # A relative “path” starts where Ultralytics was set up to keep its data, which is not known
    # here; data.yaml itself usually lies there.
    bases = [root / str(base), root] if base else [root]
    # Roboflow writes ../train/images for a folder beside data.yaml, and Ultralytics bears it.
    values = [value, value.removeprefix("../")]
    candidates = [base / value for base in bases for value in values]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def _labels_of(photo: Path) -> Path:
    """The label file of a photo: the last ``images`` of its path becomes ``labels``."""
    parts = list(photo.parts)
    folders = parts[:-1]
    if _PHOTOS in folders:
        parts[len(folders) - 1 - folders[::-1].index(_PHOTOS)] = _LABELS
    return Path(*parts).with_suffix(".txt")


def _labels_without_photo(folder: Path, photos: Iterable[Path]) -> list[Path]:
    labels = _labels_of(folder / "any").parent
    if labels == folder:  # where text files may be anything
        return []
    return sorted(set(labels.rglob("*.txt")) - {_labels_of(path) for path in photos})


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise FlawError(f"cannot be read: {error}") from None


def _read_annotation(line: str, categories: Categories, size: tuple[int, int]) -> Annotation:
    number, *coordinates = line.split()
    if not number.isdecimal():
        raise FlawError(f"begins with “{number}”, which is not the number of a class")
    class_index = int(number)
    if class_index >= len(categories):
        raise FlawError(
            f"is of class {number}, but {_FILE_NAME} numbers its {len(categories)} classes from 0"
        )
    return Annotation(class_index, fit_polygons([_read_polygon(coordinates, size)], size))


def _read_polygon(coordinates: Sequence[str], size: tuple[int, int]) -> Polygon:
    if len(coordinates) == 4:
        raise FlawError("is a bounding box, which alone cannot train or test masks")
    if len(coordinates) % 2:
        raise FlawError("has an odd number of coordinates")
    try:
        shares = np.array(coordinates, dtype=np.float64).reshape(-1, 2)
    except ValueError:
        raise FlawError("has a coordinate that is not a number") from None
    if np.any((shares < -_TOLERANCE) | (shares > 1 + _TOLERANCE)):
        raise FlawError("has a coordinate outside 0..1; it must be a share of the photo's size")
    height, width = size
    vertices: Polygon = np.round(shares * np.array([width, height]), _DECIMALS_PX)
    return vertices


def _to_line(class_index: int, outline: Polygon, sample: Sample) -> str:
    height, width = sample.image_size
    shares = outline / np.array([width, height])
    return " ".join([str(class_index), *(f"{share:.12g}" for share in shares.ravel())])


def _keys_of(splits: Iterable[str | None]) -> list[str]:
    """What each split is called in ``data.yaml``."""
    keys: list[str] = []
    for split in splits:
        key = "train" if split is None else usual_split_name(split)
        if key is None:
            raise ParameterError(
                f"YOLO has the splits train, val and test; “{split}” cannot be one of them."
            )
        if key in keys:
            raise ParameterError(
                f"YOLO has one split “{key}”, but here are two.", hint="Take one of them."
            )
        keys.append(key)
    return keys
