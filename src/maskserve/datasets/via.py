"""VGG Image Annotator files: versions 1.x and 2.x are read, 2.x is written.

A file maps a key per photo to ``{"filename": …, "regions": …}``; a project saved by VIA 2 keeps
that map under ``_via_img_metadata``. Regions are a dict in 1.x and a list in 2.x; each has
``shape_attributes`` (the outline) and ``region_attributes`` (what the annotator filled in).
https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import read_upright_size
from maskserve.datasets.polygons import ellipse_polygon, fit_polygons, rectangle_polygon
from maskserve.datasets.source import AnnotationFiles, Source, json_files, only_file, read_json
from maskserve.datasets.target import Target
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample

__all__ = ["VIA_FILE_NAME", "find_via", "read_via", "write_via"]

VIA_FILE_NAME = "via_region_data.json"
"""The name under which VIA 1.x saves its annotations."""

_PROJECT_KEY = "_via_img_metadata"


@dataclass(frozen=True, slots=True)
class _Region:
    key: str
    shape: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Entry:
    filename: str
    regions: tuple[_Region, ...]


def find_via(root: Path) -> AnnotationFiles:
    """VIA files in a folder and in the folders directly below it, which are its splits."""
    files: dict[str | None, Path] = {}
    for folder in (root, *sorted(child for child in root.iterdir() if child.is_dir())):
        usual = folder / VIA_FILE_NAME
        found = [usual] if usual.is_file() else json_files(folder, _is_via)
        if found:
            files[None if folder == root else folder.name] = only_file(found)
    return files


def read_via(source: Source) -> tuple[Dataset, list[DatasetProblem]]:
    """Read a VIA file whose photos lie beside it.

    The class of a region is the value of ``source.class_attribute``, by default the only
    attribute that is filled in anywhere; where none is, all regions are of the one class
    ``source.class_name``. Classes are collected from all splits and sorted by name: so each has
    the same index in every split, even in one where it does not occur.

    Returns:
        All photos and regions that are sound, and one problem for each that is not.

    Raises:
        DatasetError: A file is not JSON or not of VIA's shape, or several attributes are filled
            in and none was chosen.
    """
    by_split = {split: _read_entries(path) for split, path in source.files.items()}
    regions = [region for entries in by_split.values() for e in entries for region in e.regions]
    attribute = source.class_attribute or _find_class_attribute(regions, source.root)
    if attribute is None:
        categories = Categories.from_names([source.class_name])
    else:
        labels = {_label_of(region, attribute) for region in regions}
        categories = Categories.from_names(sorted(label for label in labels if label))

    def read_region(region: _Region, size: tuple[int, int]) -> Annotation:
        polygons = fit_polygons([_outline_of(region)], size)
        if attribute is None:
            return Annotation(0, polygons)
        label = _label_of(region, attribute)
        if label is None:
            raise FlawError(f"does not have one value of “{attribute}”, which names its class")
        return Annotation(categories.index_of(label), polygons)

    samples: list[Sample] = []
    problems: list[DatasetProblem] = []
    seen: set[str] = set()
    for entry in by_split[source.split]:
        image_path = source.file.parent / entry.filename
        where = source.place_of(image_path)
        if entry.filename in seen:
            problems.append(DatasetProblem(where, f"is listed twice in {source.file.name}"))
            continue
        seen.add(entry.filename)
        try:
            size = read_upright_size(image_path)
        except FlawError as error:
            problems.append(DatasetProblem(where, str(error)))
            continue
        annotations = []
        for region in entry.regions:
            try:
                annotations.append(read_region(region, size))
            except FlawError as error:
                problems.append(DatasetProblem(f"{where}, region {region.key}", str(error)))
        samples.append(Sample(image_path, len(samples) + 1, size, tuple(annotations)))
    return Dataset(source.name, categories, tuple(samples)), problems


def write_via(target: Target, splits: Mapping[str | None, Dataset]) -> None:
    """Write photos with ``via_region_data.json`` beside them, in ``SPLIT`` where there are splits.

    The class of a region is its attribute ``class``. Lost are crowd regions, masks, the parts of
    instances, ids, and classes without any instance.
    """
    target.keep_used_classes(splits.values())
    for split, dataset in splits.items():
        folder = target.root / (split or "")
        folder.mkdir(exist_ok=True)
        entries: dict[str, Any] = {}
        for sample, name in target.name_photos(dataset.samples):
            target.add_photo(sample, folder / name)
            bytes_ = (folder / name).stat().st_size
            entries[f"{name}{bytes_}"] = {
                "filename": name,
                "size": bytes_,
                "regions": [
                    {
                        "shape_attributes": {
                            "name": "polygon",
                            "all_points_x": outline[:, 0].tolist(),
                            "all_points_y": outline[:, 1].tolist(),
                        },
                        "region_attributes": {
                            "class": dataset.categories.names[annotation.class_index]
                        },
                    }
                    for annotation, outline in target.outlines(sample)
                ],
                "file_attributes": {},
            }
        (folder / VIA_FILE_NAME).write_text(json.dumps(entries), encoding="utf-8")


def _is_via(document: object) -> bool:
    """Whether parsed JSON has the shape of a VIA file."""
    if not isinstance(document, dict) or not document:
        return False
    entries = document.get(_PROJECT_KEY, document)
    return isinstance(entries, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and isinstance(entry.get("regions"), dict | list)
        for entry in entries.values()
    )


def _read_entries(path: Path) -> list[_Entry]:
    document = read_json(path)
    if not _is_via(document):
        raise DatasetError(
            f"{path} is not a VIA file.",
            hint="Save it in VIA with “Annotations > Export Annotations (as json)”.",
        )
    entries = []
    for entry in document.get(_PROJECT_KEY, document).values():
        filename, regions = entry["filename"], entry["regions"]
        numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)
        parsed = tuple(
            _Region(
                str(key),
                _as_dict(_as_dict(region).get("shape_attributes")),
                _as_dict(_as_dict(region).get("region_attributes")),
            )
            for key, region in numbered
        )
        entries.append(_Entry(filename, parsed))
    return entries


def _find_class_attribute(regions: Sequence[_Region], root: Path) -> str | None:
    """The only attribute with a value in any region; None where there is no such one."""
    filled = sorted(
        {name for region in regions for name in region.attributes if _label_of(region, name)}
    )
    if len(filled) > 1:
        raise DatasetError(
            f"The regions in {root} have several attributes: {', '.join(filled)}.",
            hint="Name the one that holds the class (class_attribute).",
        )
    return filled[0] if filled else None


def _label_of(region: _Region, attribute: str) -> str | None:
    """The class that an attribute names, or None if it names none or more than one.

    Text fields, drop-downs and radio buttons hold a string, check boxes a dict of booleans.
    """
    value = region.attributes.get(attribute)
    if isinstance(value, dict):
        ticked = [str(option) for option, is_ticked in value.items() if is_ticked]
        value = ticked[0] if len(ticked) == 1 else None
    return str(value).strip() or None if value is not None else None


def _outline_of(region: _Region) -> Polygon:
    """The outline as a polygon; FlawError if the shape is unknown or incomplete."""
    shape = region.shape
    kind = shape.get("name")
    try:
        match kind:
            case "polygon" | "polyline":
                vertices = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
                return np.array(list(vertices), dtype=np.float64).reshape(-1, 2)
            case "rect":
                width, height = _extent(shape, "width"), _extent(shape, "height")
                return rectangle_polygon(float(shape["x"]), float(shape["y"]), width, height)
            case "circle" | "ellipse":
                rx, ry = ("r", "r") if kind == "circle" else ("rx", "ry")
                return ellipse_polygon(
                    float(shape["cx"]),
                    float(shape["cy"]),
                    rx=_extent(shape, rx),
                    ry=_extent(shape, ry),
                    theta=_angle(shape),
                )
    except KeyError as error:
        raise FlawError(f"is a {kind} without {error.args[0]}") from None
    except (TypeError, ValueError):
        raise FlawError(f"is a {kind} with a coordinate that is not a number") from None
    raise FlawError(f"has the shape “{kind}”; known are polygon, polyline, rect, circle, ellipse")


def _extent(shape: Mapping[str, Any], key: str) -> float:
    value = float(shape[key])
    if not (isfinite(value) and value > 0):
        raise FlawError(f"is a {shape['name']} with {key} = {value:g}")
    return value


def _angle(shape: Mapping[str, Any]) -> float:
    value = float(shape.get("theta", 0))  # VIA 1.x has none
    if not isfinite(value):
        raise FlawError(f"is a {shape['name']} with theta = {value:g}")
    return value


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
