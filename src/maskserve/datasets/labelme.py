"""Reader of Labelme files, of which there is one for each photo: https://labelme.io.

A file has ``imagePath``, from the file's own folder, and ``shapes``, each with a ``label``, a
``shape_type``, its ``points`` and a ``group_id``, which the parts of one instance share.
"""

from __future__ import annotations

from base64 import b64decode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import hypot
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.core.masks import Mask, encode_rle
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import read_mask, read_upright_size
from maskserve.datasets.polygons import ellipse_polygon, fit_polygons, rectangle_polygon
from maskserve.datasets.source import AnnotationFiles, Source, read_json
from maskserve.datasets.types import Annotation, Dataset, Sample

__all__ = ["find_labelme", "read_labelme"]


@dataclass(frozen=True, slots=True)
class _Entry:
    photo: Path
    listed_size: tuple[Any, Any]
    has_copy: bool
    shapes: tuple[Mapping[str, Any], ...]


def find_labelme(root: Path) -> AnnotationFiles:
    """A folder with Labelme files; or folders directly below it with such, its splits."""
    folders = (root, *sorted(child for child in root.iterdir() if child.is_dir()))
    return {
        None if folder == root else folder.name: folder
        for folder in folders
        if any(_is_labelme(path) for path in sorted(folder.glob("*.json")))
    }


def read_labelme(source: Source) -> tuple[Dataset, list[DatasetProblem]]:
    """Read the Labelme files of a folder, and the sizes of their photos.

    Photos without a file are not looked at: nobody has annotated them yet. One whose file has no
    shapes has no instance. Pictures that are embedded in the files are ignored. Classes are
    collected from all splits and sorted by name: so each has the same index in every split.

    Returns:
        All photos and shapes that are sound, and one problem for each that is not.
    """
    entries: dict[Path, _Entry] = {}
    problems: list[DatasetProblem] = []
    for split, folder in source.files.items():
        for path in sorted(folder.glob("*.json")):
            try:
                entries[path] = _read_entry(path)
            except FlawError as error:
                if split == source.split:
                    problems.append(DatasetProblem(source.place_of(path), str(error)))
    labels = {_label_of(shape) for entry in entries.values() for shape in entry.shapes}
    categories = Categories.from_names(sorted(label for label in labels if label))

    samples: list[Sample] = []
    for path, entry in entries.items():
        if path.parent != source.file:
            continue
        where = source.place_of(path)
        try:
            size = _size_of(entry)
        except FlawError as error:
            problems.append(DatasetProblem(source.place_of(entry.photo), str(error)))
            continue
        annotations, flaws = _read_shapes(entry.shapes, categories, size)
        problems += [DatasetProblem(f"{where}, shape {number}", what) for number, what in flaws]
        samples.append(Sample(entry.photo, len(samples) + 1, size, annotations))
    return Dataset(source.name, categories, tuple(samples)), problems


def _is_labelme(path: Path) -> bool:
    try:
        _read_entry(path)
    except FlawError:
        return False
    return True


def _read_entry(path: Path) -> _Entry:
    try:
        document = read_json(path)
    except DatasetError:
        raise FlawError("cannot be read as JSON") from None
    if (
        not isinstance(document, dict)
        or not isinstance(document.get("imagePath"), str)
        or not isinstance(shapes := document.get("shapes"), list)
        or not all(isinstance(shape, dict) for shape in shapes)
    ):
        raise FlawError("is not a Labelme file, which has an imagePath and a list of shapes")
    # Labelme writes the separators of the system that it runs on.
    name = PureWindowsPath(document["imagePath"])
    photos = [path.parent / name.as_posix(), path.parent / name.name]
    return _Entry(
        photo=next((photo for photo in photos if photo.is_file()), photos[0]),
        listed_size=(document.get("imageHeight"), document.get("imageWidth")),
        has_copy=bool(document.get("imageData")),
        shapes=tuple(shapes),
    )


def _size_of(entry: _Entry) -> tuple[int, int]:
    """Upright (height, width) of the photo, which the file must agree with."""
    if entry.has_copy and not entry.photo.is_file():
        raise FlawError(
            "is missing; its annotation file holds a copy (imageData), which must be a file"
        )
    height, width = read_upright_size(entry.photo)
    listed_height, listed_width = entry.listed_size
    if None not in entry.listed_size and entry.listed_size != (height, width):
        raise FlawError(
            f"is {width}x{height} pixels when upright, but was annotated as "
            f"{listed_width}x{listed_height}"
        )
    return height, width


def _read_shapes(
    shapes: Sequence[Mapping[str, Any]], categories: Categories, size: tuple[int, int]
) -> tuple[tuple[Annotation, ...], list[tuple[int, str]]]:
    """The instances of a photo; and the numbers of shapes that are none, with what is wrong."""
    flaws: list[tuple[int, str]] = []
    instances: defaultdict[tuple[int, str], list[Annotation]] = defaultdict(list)
    for number, shape in enumerate(shapes):
        try:
            part = _read_shape(shape, categories, size)
        except FlawError as error:
            flaws.append((number, str(error)))
            continue
        group = shape.get("group_id")
        group = f"shape {number}" if group is None else f"group {group}"
        instances[part.class_index, group].append(part)
    return tuple(_join(parts, size) for parts in instances.values()), flaws


def _join(parts: Sequence[Annotation], size: tuple[int, int]) -> Annotation:
    """One instance of all its parts; a mask if any of them is one."""
    if len(parts) == 1:
        return parts[0]
    class_index = parts[0].class_index
    if all(part.polygons for part in parts):
        return Annotation(class_index, tuple(p for part in parts for p in part.polygons))
    union = np.logical_or.reduce([part.mask(size) for part in parts])
    return Annotation(class_index, rle=encode_rle(union))


def _label_of(shape: Mapping[str, Any]) -> str | None:
    label = shape.get("label")
    return label if isinstance(label, str) and label else None


def _read_shape(
    shape: Mapping[str, Any], categories: Categories, size: tuple[int, int]
) -> Annotation:
    label = _label_of(shape)
    if label is None:
        raise FlawError("has no label, which names its class")
    class_index = categories.index_of(label)
    kind = shape.get("shape_type") or "polygon"  # the only one in old files, which do not say so
    try:
        points = np.array(shape.get("points"), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise FlawError(f"is a {kind} with a point that is not two numbers") from None
    if not np.isfinite(points).all():
        raise FlawError(f"is a {kind} with a coordinate that is not a number")
    if kind == "polygon":
        return Annotation(class_index, fit_polygons([points], size))
    if kind not in ("rectangle", "circle", "mask"):
        raise FlawError(f"has the shape “{kind}”; known are polygon, rectangle, circle, mask")
    if len(points) != 2:
        raise FlawError(f"is a {kind} with {len(points)} points, but must have 2")
    (x0, y0), (x1, y1) = points.tolist()
    match kind:
        case "rectangle":
            outline = rectangle_polygon(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
        case "circle":  # its centre, and a point on its rim
            radius = hypot(x1 - x0, y1 - y0)
            outline = ellipse_polygon(x0, y0, rx=radius, ry=radius)
        case _:
            mask = _place_mask(shape.get("mask"), top=int(y0), left=int(x0), size=size)
            return Annotation(class_index, rle=encode_rle(mask))
    return Annotation(class_index, fit_polygons([outline], size))


def _place_mask(data: object, *, top: int, left: int, size: tuple[int, int]) -> Mask:
    """The pixels of a mask, which is a PNG in base64, in the whole photo."""
    if not isinstance(data, str):
        raise FlawError("is a mask without a picture of it")
    try:
        png = b64decode(data, validate=True)
    except ValueError:
        raise FlawError("is a mask whose picture is not in base64") from None
    pixels = read_mask(BytesIO(png))
    if not pixels.any():
        raise FlawError("is a mask without any pixel")
    bottom, right = top + pixels.shape[0], left + pixels.shape[1]
    if top < 0 or left < 0 or bottom > size[0] or right > size[1]:
        raise FlawError(f"is a mask that reaches beyond the photo of {size[1]}x{size[0]} pixels")
    mask = np.zeros(size, dtype=np.bool_)
    mask[top:bottom, left:right] = pixels
    return mask
