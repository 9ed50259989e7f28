from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskserve.core.brush_rle import encode_brush
from maskserve.core.errors import DatasetError
from maskserve.datasets import FORMAT_NAMES, available_splits, load_dataset, read_dataset
from maskserve.datasets.synthetic import write_via_dataset


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    root = tmp_path / "toys"
    write_via_dataset(root, train=2, val=1, size=(48, 64), instances_per_photo=1)
    return root


def test_splits_are_listed(toys: Path) -> None:
    assert available_splits(toys) == ("train", "val")
    assert available_splits(toys / "train") == ()


def test_folder_of_a_split_is_a_data_set_of_the_same_class(toys: Path) -> None:
    dataset = load_dataset(toys / "val")
    assert dataset.name == "toys"
    assert dataset.categories.names == ("toys",)


def test_linked_folder_is_called_like_its_link(toys: Path, tmp_path: Path) -> None:
    (tmp_path / "balloon").symlink_to(toys, target_is_directory=True)
    assert load_dataset(tmp_path / "balloon", split="val").name == "balloon val"


def test_folder_may_be_named_from_where_one_stands(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toys / "train")
    for path in (".", "..", "../train"):
        dataset = load_dataset(Path(path), split="val" if path == ".." else None)
        assert dataset.categories.names == ("toys",)


def test_format_can_be_named(toys: Path) -> None:
    assert len(load_dataset(toys, split="train", format="via")) == 2
    with pytest.raises(DatasetError, match="coco: annotations/instances_SPLIT"):
        load_dataset(toys, split="train", format="coco")
    with pytest.raises(DatasetError, match=f"no format “yolo9”. Known: {', '.join(FORMAT_NAMES)}"):
        load_dataset(toys, format="yolo9")


def test_missing_split_names_those_that_are_there(toys: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no split “test”\. It has: train, val"):
        load_dataset(toys, split="test")
    with pytest.raises(DatasetError, match="is divided into train, val"):
        load_dataset(toys)
    with pytest.raises(DatasetError, match="is not divided, so there is no split “val”"):
        load_dataset(toys / "train", split="val")


def test_unknown_format_says_what_is_there_and_what_was_expected(
    tmp_path: Path, write_photo: Callable[..., None], write_json: Callable[[Path, Any], None]
) -> None:
    with pytest.raises(DatasetError, match="It holds nothing"):
        load_dataset(tmp_path)
    write_photo(tmp_path / "photos" / "a.jpg")
    write_json(tmp_path / "notes.json", {"shopping": ["milk"]})
    with pytest.raises(DatasetError, match=r"It holds notes\.json, photos/\.") as caught:
        load_dataset(tmp_path)
    assert all(name in str(caught.value.hint) for name in FORMAT_NAMES)


def test_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no folder"):
        load_dataset(tmp_path / "nowhere")


def test_data_set_without_any_photo_is_refused(
    tmp_path: Path, write_json: Callable[[Path, Any], None]
) -> None:
    write_json(tmp_path / "instances.json", {"images": [], "annotations": [], "categories": []})
    with pytest.raises(DatasetError, match="has no photo"):
        load_dataset(tmp_path)


VIA = """{"photo.jpg1": {"filename": "photo.jpg", "regions": {
    "0": {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 9],
          "all_points_y": [1, 1, 9]}, "region_attributes": {"kind": "cat"}},
    "1": {"shape_attributes": {"name": "ellipse", "cx": 20, "cy": 20, "rx": 5, "ry": 4,
          "theta": 0.3}, "region_attributes": {"kind": {"dog": true}}}}}}"""
COCO = """{"images": [{"id": 1, "file_name": "photo.jpg", "width": 60, "height": 40}],
    "categories": [{"id": 3, "name": "cat"}], "annotations": [
    {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]},
    {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 1,
     "segmentation": {"size": [40, 60], "counts": [100, 50, 2250]}}]}"""
LABELME = """{"imagePath": "photo.jpg", "imageHeight": 40, "imageWidth": 60, "imageData": null,
    "shapes": [
    {"label": "cat", "shape_type": "polygon", "group_id": 1, "points": [[1, 1], [9, 1], [9, 9]]},
    {"label": "cat", "shape_type": "circle", "group_id": 1, "points": [[30, 20], [35, 20]]},
    {"label": "dog", "shape_type": "mask", "points": [[3, 4], [4, 5]], "mask":
     "PNG"}]}""".replace(
    "PNG",  # 2 x 2 pixels, of which three are white
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGP8z8DA8B8ABgYCAMonBf8AAAAASUVORK5CYII=",
)
BRUSH = encode_brush(np.arange(2400).reshape(40, 60) // 7 % 5 == 0)
LABEL_STUDIO = """[{"id": 1, "data": {"image": "/data/upload/1/photo.jpg"},
    "annotations": [{"result": [
    {"type": "polygonlabels", "original_width": 60, "original_height": 40, "image_rotation": 0,
     "value": {"polygonlabels": ["cat"], "points": [[10, 10], [50, 10], [50, 50]]}},
    {"type": "brushlabels", "original_width": 60, "original_height": 40, "value": {"format": "rle",
     "brushlabels": ["dog"], "rle": RLE}}]}]}]""".replace("RLE", str(BRUSH))
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    3.7,
    1e999,
    10**30,
    "",
    "x",
    "../x",
    [],
    [1],
    [[]],
    {},
    {"size": [40, 60]},
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with each of its keys."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from places(node[key])


TEXTS = {"via": VIA, "coco": COCO, "labelme": LABELME, "label-studio": LABEL_STUDIO}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_annotations_before_the_damage_are_sound(
    tmp_path: Path, write_photo: Callable[..., None], text: str
) -> None:
    write_photo(tmp_path / "photo.jpg", (40, 60))
    (tmp_path / "annotations.json").write_text(text)
    (sample,) = load_dataset(tmp_path).samples
    assert len(sample.annotations) == 2


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(TEXTS.values())), st.data())
def test_damaged_annotations_are_told_in_our_own_words(
    tmp_path: Path, write_photo: Callable[..., None], text: str, data: st.DataObject
) -> None:
    write_photo(tmp_path / "photo.jpg", (40, 60))
    document = json.loads(text)
    for _ in range(data.draw(st.integers(0, 3))):
        container, key = data.draw(st.sampled_from(list(places(document)) or [({}, "")]))
        container[key] = deepcopy(data.draw(st.sampled_from(JUNK)))
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    try:
        dataset, _ = read_dataset(tmp_path)
    except DatasetError:
        return
    for sample in dataset.samples:
        assert all(annotation.area_px(sample.image_size) > 0 for annotation in sample.annotations)
