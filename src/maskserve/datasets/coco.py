"""COCO instance annotations, read and written: https://cocodataset.org/#format-data."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from maskserve.core.boxes import xyxy_to_xywh
from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, DatasetProblem
from maskserve.core.masks import Rle, rle_area, rle_box_xyxy
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import read_upright_size
from maskserve.datasets.polygons import fit_polygons
from maskserve.datasets.source import (
    AnnotationFiles,
    Source,
    is_split_name,
    json_files,
    only_file,
    read_json,
)
from maskserve.datasets.target import Target
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample

__all__ = ["find_coco", "read_coco", "write_coco"]

_PREFIX = "instances_"


def find_coco(root: Path) -> AnnotationFiles:
    """COCO files in a folder: the folder's own, or one for each split.

    A split's file is ``annotations/instances_SPLIT.json``, ``SPLIT.json`` or the COCO file in
    the folder ``SPLIT``. Any other COCO file in ``root`` or in ``annotations`` is the folder's
    own.
    """
    # Beside these, COCO ships captions and keypoints of the same photos.
    paths = sorted(root.glob(f"annotations/{_PREFIX}*.json"))
    paths = paths or json_files(root, _is_coco) + json_files(root / "annotations", _is_coco)
    by_split: defaultdict[str | None, list[Path]] = defaultdict(list)
    for path in paths:
        name = path.stem.removeprefix(_PREFIX)
        has_folder = (root / name).is_dir() or (root / "images" / name).is_dir()
        by_split[name if has_folder or is_split_name(name) else None].append(path)
    for folder in root.iterdir():
        if folder.is_dir() and folder.name != "annotations" and folder.name not in by_split:
            by_split[folder.name] += json_files(folder, _is_coco)
    return {split: only_file(files) for split, files in by_split.items() if files}


def read_coco(source: Source) -> tuple[Dataset, list[DatasetProblem]]:
    """Read a COCO file and find its photos.

    Photos may lie in ``SPLIT``, ``images/SPLIT``, ``images`` or ``root`` itself, or beside the
    annotation file. Those without annotations are kept. Classes are ordered by category_id,
    which may start anywhere and have gaps.

    Returns:
        All photos and annotations that are sound, and one problem for each that is not.

    Raises:
        DatasetError: The file is not JSON or not of COCO's shape, or its list of categories
            contradicts itself.
    """
    document = read_json(source.file)
    if not _is_coco(document):
        raise DatasetError(
            f"{source.file} is not a COCO file.",
            hint="It must be an object with the lists images, annotations and categories.",
        )
    categories = _read_categories(document["categories"], source.file)
    problems: list[DatasetProblem] = []
    by_image: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    file_place = source.place_of(source.file)
    known_images = {id_ for image in document["images"] if isinstance(id_ := image.get("id"), int)}
    seen: set[int] = set()
    for annotation in document["annotations"]:
        try:
            _require_new(annotation, seen)
            image_id = _require_known_image(annotation, known_images)
        except FlawError as error:
            where = f"{file_place}, annotation {annotation.get('id')}"
            problems.append(DatasetProblem(where, str(error)))
        else:
            by_image[image_id].append(annotation)

    samples: list[Sample] = []
    folders = _image_folders(source)
    seen = set()
    for image in document["images"]:
        where = str(image.get("file_name") or f"{file_place}, image {image.get('id')}")
        try:
            image_id = _require_new(image, seen)
            path, size = _find_photo(image, folders)
        except FlawError as error:
            problems.append(DatasetProblem(where, str(error)))
            continue
        where = source.place_of(path)
        annotations = []
        for annotation in by_image[image_id]:
            try:
                annotations.append(_read_annotation(annotation, categories, size))
            except FlawError as error:
                place = f"{where}, annotation {annotation['id']}"
                problems.append(DatasetProblem(place, str(error)))
        samples.append(Sample(path, image_id, size, tuple(annotations)))
    return Dataset(source.name, categories, tuple(samples)), problems


def write_coco(target: Target, splits: Mapping[str | None, Dataset]) -> None:
    """Write ``images/SPLIT`` and ``annotations/instances_SPLIT.json``.

    What is not divided goes to ``images`` and ``instances.json``. Nothing is lost that was read:
    neither ids of photos and classes, nor crowd regions, nor classes without any instance.
    Annotations are numbered anew. Masks are written as compressed RLE.
    """
    for split, dataset in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for sample, name in target.name_photos(dataset.samples):
            target.add_photo(sample, target.root / "images" / (split or "") / name)
            height, width = sample.image_size
            images.append(
                {"id": sample.image_id, "file_name": name, "height": height, "width": width}
            )
            for annotation in sample.annotations:
                entry = _to_entry(annotation, sample, dataset.categories)
                annotations.append({"id": len(annotations) + 1, **entry})
        document = {
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": number, "name": name}
                for number, name in zip(
                    dataset.categories.category_ids, dataset.categories.names, strict=True
                )
            ],
        }
        file = "instances.json" if split is None else f"annotations/{_PREFIX}{split}.json"
        path = target.root / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document), encoding="utf-8")


def _to_entry(annotation: Annotation, sample: Sample, categories: Categories) -> dict[str, Any]:
    """An annotation in COCO's form, but for its id."""
    rle = annotation.to_rle(sample.image_size)
    return {
        "image_id": sample.image_id,
        "category_id": categories.id_of(annotation.class_index),
        "segmentation": annotation.rle or [part.ravel().tolist() for part in annotation.polygons],
        "area": rle_area(rle),
        "bbox": xyxy_to_xywh(rle_box_xyxy(rle)[None])[0].tolist(),
        "iscrowd": int(annotation.is_crowd),
    }


def _is_coco(document: object) -> bool:
    """Whether parsed JSON has the shape of a COCO file."""
    return isinstance(document, dict) and all(
        isinstance(section := document.get(name), list)
        and all(isinstance(entry, dict) for entry in section)
        for name in ("images", "annotations", "categories")
    )


def _read_categories(entries: Sequence[Mapping[str, Any]], path: Path) -> Categories:
    try:
        by_id = sorted((_whole_number(entry, "id"), str(entry["name"])) for entry in entries)
        return Categories(tuple(name for _, name in by_id), tuple(number for number, _ in by_id))
    except KeyError:
        raise DatasetError(f"{path} has a category without a name.") from None
    except (FlawError, ValueError) as error:
        raise DatasetError(f"The categories of {path} are not valid: {error}.") from None


def _image_folders(source: Source) -> list[Path]:
    root, beside = source.root, source.file.parent
    of_split = [] if source.split is None else [root / source.split, root / "images" / source.split]
    return [*of_split, root / "images", root, beside / "images", beside]


def _find_photo(image: Mapping[str, Any], folders: Sequence[Path]) -> tuple[Path, tuple[int, int]]:
    """Path and upright (height, width) of a photo."""
    if not isinstance(image.get("file_name"), str):
        raise FlawError("has no file_name")
    # Label Studio lists photos by where they lay when they were annotated.
    names = image["file_name"], PureWindowsPath(image["file_name"]).name
    paths = [folder / name for name in names for folder in folders]
    path = next((path for path in paths if path.is_file()), paths[0])
    height, width = read_upright_size(path)
    listed = image.get("height", height), image.get("width", width)
    if listed != (height, width):
        # Outlines that were drawn on another photo, or before it was turned, fit nowhere.
        raise FlawError(
            f"is {width}x{height} pixels when upright, but listed as {listed[1]}x{listed[0]}"
        )
    return path, (height, width)


def _read_annotation(
    annotation: Mapping[str, Any], categories: Categories, size: tuple[int, int]
) -> Annotation:
    category_id = _whole_number(annotation, "category_id")
    if category_id not in categories.category_ids:
        raise FlawError(f"belongs to category {category_id}, which is not listed")
    class_index = categories.index_of_id(category_id)
    is_crowd = bool(annotation.get("iscrowd", 0))
    segmentation = annotation.get("segmentation")
    if not segmentation:
        raise FlawError("has no segmentation; a bounding box alone cannot train or test masks")
    if isinstance(segmentation, dict):
        return Annotation(class_index, rle=_read_rle(segmentation, size), is_crowd=is_crowd)
    if not isinstance(segmentation, list):
        raise FlawError("has a segmentation that is neither a list of polygons nor an RLE")
    polygons = [_read_polygon(part) for part in segmentation]
    return Annotation(class_index, fit_polygons(polygons, size), is_crowd=is_crowd)


def _read_polygon(flat: object) -> Polygon:
    if not isinstance(flat, list) or len(flat) % 2:
        raise FlawError("has a polygon that is not a list of x, y, x, y, …")
    try:
        return np.array(flat, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise FlawError("has a polygon with a coordinate that is not a number") from None


def _read_rle(segmentation: Mapping[str, Any], size: tuple[int, int]) -> Rle:
    """A sound RLE in compressed form. pycocotools reads beyond the end of one that is not."""
    height, width = size
    if segmentation.get("size") != [height, width]:
        raise FlawError(
            f"has a mask of size {segmentation.get('size')} in a photo of [{height}, {width}]"
        )
    counts = segmentation.get("counts")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(isinstance(run, int) and run >= 0 for run in runs)
        or sum(runs) != height * width
    ):
        raise FlawError(f"has an RLE whose runs do not add up to {height} x {width} pixels")
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    rle: Rle = {"size": [height, width], "counts": compressed["counts"].decode("ascii")}
    if rle_area(rle) == 0:
        raise FlawError("has a mask without any pixel")
    return rle


def _decompress(counts: str) -> list[int]:
    """Run lengths of a compressed RLE (``rleFrString`` of pycocotools' maskApi.c).

    Six bits a character, of which one says that more follow; from the fourth run on, each is
    the difference to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _require_new(entry: Mapping[str, Any], seen: set[int]) -> int:
    """The id of an entry, which must not have occurred before."""
    number = _whole_number(entry, "id")
    if number in seen:
        raise FlawError(f"has the id {number} of another one")
    seen.add(number)
    return number


def _require_known_image(annotation: Mapping[str, Any], known: Container[int]) -> int:
    image_id = _whole_number(annotation, "image_id")
    if image_id not in known:
        raise FlawError(f"belongs to image {image_id}, which is not listed")
    return image_id


def _whole_number(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int):
        raise FlawError(f"has no whole number as its {key}")
    return value
