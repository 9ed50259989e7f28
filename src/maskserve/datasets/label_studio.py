"""Reader of Label Studio's exports JSON and JSON-MIN: https://labelstud.io/guide/export.

JSON is a list of tasks, each with its ``data``, which name the photo, and its ``annotations``,
whose ``result`` lists the regions. JSON-MIN has one entry for each annotation, with the regions of
each control under the control's name. Coordinates are percentages of the upright photo's size,
as browsers show it; brush strokes have an encoding of their own, :mod:`maskserve.core.brush_rle`.
"""

from __future__ import annotations

import mimetypes
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import radians
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from maskserve.core.brush_rle import decode_brush
from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.core.masks import encode_rle
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import listed_photos, read_upright_size
from maskserve.datasets.polygons import ellipse_polygon, fit_polygons
from maskserve.datasets.source import (
    AnnotationFiles,
    Source,
    is_split_name,
    json_files,
    only_file,
    read_json,
)
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample

__all__ = ["find_label_studio", "read_label_studio"]

_OUTLINES = ("brushlabels", "polygonlabels", "ellipselabels")
"""Keys of regions that say which pixels belong to an instance; each holds the labels."""

_OTHER_REGIONS = {
    "rectanglelabels": "a rectangle, and a box alone cannot train or test masks",
    "keypointlabels": "a key point",
    "vectorlabels": "a line",
    "bitmasklabels": "a bitmask, which is not read; draw with BrushLabels",
}
_SHAPE_KEYS = frozenset({"rle", "points", "radiusX"})
"""Of regions whose label is missing."""

_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
"""Label Studio puts it before the names of uploads."""

_DECIMALS_PX = 6
"""A vertex that was at 10.5 before it became a percentage is there again."""

_Region = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Entry:
    """An annotated task: where it stands, its data, and the regions that somebody drew."""

    where: str
    data: Mapping[str, Any]
    regions: tuple[_Region, ...]


def find_label_studio(root: Path) -> AnnotationFiles:
    """An export in the folder, whatever its name; or one for each split.

    A split's export is called like the split or lies in a folder directly below.
    """
    by_split: defaultdict[str | None, list[Path]] = defaultdict(list)
    for path in json_files(root, _is_export):
        by_split[path.stem if is_split_name(path.stem) else None].append(path)
    for folder in sorted(child for child in root.iterdir() if child.is_dir()):
        if paths := json_files(folder, _is_export):
            by_split[folder.name] += paths
    return {split: only_file(paths) for split, paths in by_split.items()}


def read_label_studio(source: Source) -> tuple[Dataset, list[DatasetProblem]]:
    """Read an export and find its photos, which lie anywhere in the folder under their names.

    The eight letters that Label Studio puts before the name of an upload may be missing. Tasks
    that nobody has annotated, or that were skipped, are not looked at. Of several annotations
    of a task the ground truth counts. What is no region, such as choices, is ignored. Classes are
    collected from all splits and sorted by name: so each has the same index in every split.

    Returns:
        All photos and regions that are sound, and one problem for each that is not.

    Raises:
        DatasetError: The file is not JSON, or not an export of Label Studio.
    """
    problems: list[DatasetProblem] = []
    labels: set[str] = set()
    entries: list[_Entry] = []
    for split, path in source.files.items():
        found, flaws = _read_entries(path, source)
        labels.update(
            label for entry in found for region in entry.regions if (label := _label_of(region))
        )
        if split == source.split:
            entries, problems = found, flaws
    categories = Categories.from_names(sorted(labels))

    photos: defaultdict[str, list[Path]] = defaultdict(list)
    for photo in listed_photos(source.root):
        photos[photo.name].append(photo)
    samples: list[Sample] = []
    for entry in entries:
        try:
            path = _find_photo(_reference_of(entry.data), photos, beside=source.file.parent)
            size = read_upright_size(path)
        except FlawError as error:
            problems.append(DatasetProblem(entry.where, str(error)))
            continue
        annotations = []
        for number, region in enumerate(entry.regions):
            try:
                annotations.append(_read_region(region, categories, size))
            except FlawError as error:
                problems.append(DatasetProblem(f"{entry.where}, region {number}", str(error)))
        samples.append(Sample(path, len(samples) + 1, size, tuple(annotations)))
    return Dataset(source.name, categories, tuple(samples)), problems


def _is_export(document: object) -> bool:
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(entry, dict) for entry in document)
        and (
            all(_is_task(entry) for entry in document) or all(_is_min(entry) for entry in document)
        )
    )


def _is_task(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("data"), dict) and isinstance(_annotations_of(entry), list)


def _is_min(entry: Mapping[str, Any]) -> bool:
    return {"id", "annotation_id", "annotator"} <= entry.keys()


def _annotations_of(task: Mapping[str, Any]) -> Any:
    return task.get("annotations", task.get("completions"))  # their name before version 1.0


def _read_entries(path: Path, source: Source) -> tuple[list[_Entry], list[DatasetProblem]]:
    document = read_json(path)
    if not _is_export(document):
        raise DatasetError(
            f"{path} is not an export of Label Studio.",
            hint="It must be a list of tasks or of annotations: the export JSON or JSON-MIN.",
        )
    by_task: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for position, entry in enumerate(document):
        by_task[str(entry.get("id", f"at {position}"))].append(entry)
    entries: list[_Entry] = []
    problems: list[DatasetProblem] = []
    for task_id, of_task in by_task.items():
        where = f"{source.place_of(path)}, task {task_id}"
        try:
            entry = _read_entry(of_task, where)
        except FlawError as error:
            problems.append(DatasetProblem(where, str(error)))
        else:
            entries += [entry] if entry else []
    return entries, problems


def _read_entry(of_task: Sequence[Mapping[str, Any]], where: str) -> _Entry | None:
    """The one annotation of a task; None if nobody has annotated it."""
    first = of_task[0]
    if not _is_task(first):
        _require_one(of_task)
        listed = [value for value in first.values() if isinstance(value, list)]
        return _Entry(where, first, _regions(value for values in listed for value in values))
    annotations = [
        annotation
        for task in of_task
        for annotation in _annotations_of(task)
        if isinstance(annotation, dict)
        and not annotation.get("was_cancelled")
        and not annotation.get("skipped")
    ]
    if not annotations:
        return None
    annotation = _require_one([a for a in annotations if a.get("ground_truth")] or annotations)
    results = annotation.get("result")
    if not isinstance(results, list):
        raise FlawError("has an annotation without a list of results")
    return _Entry(
        where,
        first["data"],
        _regions(
            {**result, **result["value"]}
            for result in results
            if isinstance(result, dict) and isinstance(result.get("value"), dict)
        ),
    )


def _require_one(annotations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(annotations) > 1:
        raise FlawError(
            f"has {len(annotations)} annotations; delete all but one in Label Studio, or mark one "
            "as ground truth and export as JSON"
        )
    return annotations[0]


def _regions(values: Any) -> tuple[_Region, ...]:
    keys = _SHAPE_KEYS.union(_OUTLINES, _OTHER_REGIONS)
    return tuple(value for value in values if isinstance(value, dict) and keys & value.keys())


def _label_of(region: _Region) -> str | None:
    """The label of a region with an outline; None if it has none or several."""
    kind = next((kind for kind in _OUTLINES if kind in region), None)
    match region.get(kind) if kind else None:
        case [str(label)] if label:
            return label
    return None


def _reference_of(data: Mapping[str, Any]) -> str:
    """What a task says of its photo: its only text that is the name of a picture."""
    references = {value for value in data.values() if isinstance(value, str) and _is_photo(value)}
    if len(references) != 1:
        raise FlawError(f"names {len(references)} photos in its data, but must name one")
    (reference,) = references
    if reference.startswith("data:"):
        raise FlawError("holds a copy of its photo (data:), which must be a file")
    return reference


def _is_photo(text: str) -> bool:
    if text.startswith("data:"):
        return text.startswith("data:image/")
    return (mimetypes.guess_type(_path_of(text).name)[0] or "").startswith("image/")


def _path_of(reference: str) -> PurePosixPath:
    """The path in a reference such as ``/data/local-files/?d=pets%2Fa.jpg`` or ``s3://b/a.jpg``."""
    try:
        address = urlsplit(reference)
    except ValueError:
        return PurePosixPath(reference)
    local = parse_qs(address.query).get("d")
    return PurePosixPath(local[-1] if local else unquote(address.path))


def _find_photo(reference: str, photos: Mapping[str, Sequence[Path]], *, beside: Path) -> Path:
    """The file in the data set that is most likely meant."""
    path = _path_of(reference)
    found = photos.get(path.name) or photos.get(_UPLOAD_PREFIX.sub("", path.name, count=1)) or []
    if not found:
        raise FlawError(f"names the photo {path.name}, which is missing")

    def likeness(photo: Path) -> tuple[bool, int]:
        """Is it in the split's folder, and how many folders above it have the same names?"""
        pairs = zip(reversed(photo.parts[:-1]), reversed(path.parts[:-1]), strict=False)
        same = 0
        for here, there in pairs:
            if here != there:
                break
            same += 1
        return photo.is_relative_to(beside), same

    best = max(map(likeness, found))
    alike = [photo for photo in found if likeness(photo) == best]
    if len(alike) > 1:
        raise FlawError(f"names the photo {path.name}, of which there are {len(alike)}")
    return alike[0]


def _read_region(region: _Region, categories: Categories, size: tuple[int, int]) -> Annotation:
    for kind, what in _OTHER_REGIONS.items():
        if kind in region:
            raise FlawError(f"is {what}")
    label = _label_of(region)
    if label is None:
        raise FlawError("must have one label, which names its class")
    class_index = categories.index_of(label)
    _require_size(region, size)
    if "brushlabels" in region:
        return Annotation(class_index, rle=encode_rle(_read_brush(region, size)))
    outline = (
        _read_polygon(region, size) if "polygonlabels" in region else _read_ellipse(region, size)
    )
    return Annotation(class_index, fit_polygons([outline], size))


def _require_size(region: _Region, size: tuple[int, int]) -> None:
    """What was drawn on another photo, or on a turned one, fits nowhere."""
    height, width = size
    listed = region.get("original_width", width), region.get("original_height", height)
    if listed != (width, height):
        raise FlawError(
            f"was drawn on {listed[0]}x{listed[1]} pixels, but the photo is {width}x{height} when "
            "upright"
        )
    if region.get("image_rotation"):
        raise FlawError("was drawn on a photo that was turned in Label Studio")


def _read_brush(region: _Region, size: tuple[int, int]) -> Any:
    try:
        encoded = bytes(region["rle"])
    except (KeyError, TypeError, ValueError):
        raise FlawError("is a brush without a list of bytes") from None
    try:
        mask = decode_brush(encoded, size)
    except ValueError as error:
        raise FlawError(f"is a brush whose encoding {error}") from None
    if not mask.any():
        raise FlawError("is a brush without any pixel")
    return mask


def _read_polygon(region: _Region, size: tuple[int, int]) -> Polygon:
    try:
        points = np.array(region.get("points"), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise FlawError("is a polygon with a point that is not two numbers") from None
    vertices: Polygon = np.round(points * (size[1] / 100, size[0] / 100), _DECIMALS_PX)
    return vertices


def _read_ellipse(region: _Region, size: tuple[int, int]) -> Polygon:
    try:
        x, y, radius_x, radius_y, rotation = (
            float(region.get(key, 0)) for key in ("x", "y", "radiusX", "radiusY", "rotation")
        )
    except (TypeError, ValueError):
        raise FlawError("is an ellipse with something that is not a number") from None
    if not np.isfinite([x, y, radius_x, radius_y, rotation]).all():
        raise FlawError("is an ellipse with something that is not a number")
    height, width = size
    return ellipse_polygon(
        x * width / 100,
        y * height / 100,
        rx=radius_x * width / 100,
        ry=radius_y * height / 100,
        theta=radians(rotation),
    )
