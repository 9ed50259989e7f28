from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskserve.core.brush_rle import encode_brush
from maskserve.core.errors import DatasetError
from maskserve.core.masks import Mask
from maskserve.datasets import available_splits, load_dataset, read_dataset

SIZE = (40, 60)
_OUTER_KEYS = ("original_width", "image_rotation")
WriteExport = Callable[..., Path]


def region(kind: str, label: Any = "cat", **value: Any) -> dict[str, Any]:
    """A result as exported; ``value`` may replace its sizes."""
    labels = label if isinstance(label, list) else [label]
    outer: dict[str, Any] = {k: value.pop(k) for k in _OUTER_KEYS if k in value}
    return {
        "id": "a1b2c3",
        "type": kind,
        "from_name": "mask",
        "to_name": "photo",
        "original_width": 60,
        "original_height": 40,
        "image_rotation": 0,
        "value": {**value, kind: labels},
        **outer,
    }


def brush(mask: Mask, label: Any = "cat", **changes: Any) -> dict[str, Any]:
    return region("brushlabels", label, format="rle", rle=encode_brush(mask), **changes)


def polygon(points: Any, label: Any = "cat", **changes: Any) -> dict[str, Any]:
    return region("polygonlabels", label, points=points, closed=True, **changes)


# In percent of 60 x 40 pixels: from (6, 4) to (30, 20).
SQUARE = [[10, 10], [50, 10], [50, 50], [10, 50]]


def task(*results: Any, photo: str = "/data/upload/1/0a1b2c3d-photo.jpg", **changes: Any) -> Any:
    values = {"id": 12, "data": {"image": photo}, "annotations": [{"result": list(results)}]}
    return values | changes


def to_min(exported: dict[str, Any]) -> dict[str, Any]:
    """What Label Studio makes of a task for JSON-MIN."""
    flat = [
        {**result["value"], **{k: result[k] for k in ("original_width", "original_height")}}
        for result in exported["annotations"][0]["result"]
    ]
    return {
        **exported["data"],
        "id": exported["id"],
        **({"mask": flat} if flat else {}),
        "annotator": 1,
        "annotation_id": 3,
        "lead_time": 5.1,
    }


@pytest.fixture
def write_export(
    tmp_path: Path, write_photo: Callable[..., None], write_json: Callable[[Path, Any], None]
) -> WriteExport:
    def write(*tasks: Any, file: str = "project-1.json", photos: Any = ("photo.jpg",)) -> Path:
        root = tmp_path / "pets"
        for photo in photos:
            write_photo(root / photo, SIZE)
        write_json(root / file, list(tasks))
        return root

    return write


@pytest.mark.parametrize("form", [deepcopy, to_min], ids=["JSON", "JSON-MIN"])
def test_regions_become_masks(write_export: WriteExport, form: Callable[[Any], Any]) -> None:
    drawn = np.zeros(SIZE, dtype=np.bool_)
    drawn[3:9, 30:34] = True
    ellipse = region("ellipselabels", "dog", x=50, y=50, radiusX=10, radiusY=30, rotation=90)
    root = write_export(form(task(brush(drawn), polygon(SQUARE, "dog"), ellipse)))
    dataset = load_dataset(root)
    assert dataset.categories.names == ("cat", "dog")
    (sample,) = dataset.samples
    brushed, outlined, round_one = sample.annotations
    assert np.array_equal(brushed.mask(SIZE), drawn)
    assert outlined.box_xyxy(SIZE).tolist() == [6, 4, 30, 20]
    assert outlined.area_px(SIZE) == 24 * 16
    # Turned by 90 degrees: 12 pixels to the left and right, 6 up and down.
    assert round_one.box_xyxy(SIZE).tolist() == [18, 14, 42, 26]
    assert [annotation.class_index for annotation in sample.annotations] == [0, 1, 1]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(arrays(np.bool_, SIZE).filter(np.any), min_size=1, max_size=4))
def test_brushes_are_read_to_the_pixel(write_export: WriteExport, masks: list[Mask]) -> None:
    (sample,) = load_dataset(write_export(task(*map(brush, masks)))).samples
    for annotation, mask in zip(sample.annotations, masks, strict=True):
        assert np.array_equal(annotation.mask(SIZE), mask)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 50), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))
def test_whole_pixels_survive_percentages(
    write_export: WriteExport, left: int, top: int, width: int, height: int
) -> None:
    right, bottom = left + width, top + height
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    percent = [[x * (100 / 60), y * (100 / 40)] for x, y in corners]
    (sample,) = load_dataset(write_export(task(polygon(percent)))).samples
    assert sample.annotations[0].area_px(SIZE) == width * height


def test_what_is_no_region_is_ignored(write_export: WriteExport) -> None:
    choice = {"type": "choices", "from_name": "c", "value": {"choices": ["good"]}}
    relation = {"type": "relation", "from_id": "a", "to_id": "b"}
    entity = region("labels", "PER", start=1, end=3, text="abc")
    (sample,) = load_dataset(write_export(task(choice, relation, entity, polygon(SQUARE)))).samples
    assert len(sample.annotations) == 1


def test_only_annotated_tasks_are_read(write_export: WriteExport) -> None:
    root = write_export(
        task(polygon(SQUARE), id=1),
        task(id=2, annotations=[]),
        task(id=3, annotations=[{"result": [], "was_cancelled": True}]),
        task(id=4, photo="/data/upload/1/empty.jpg"),
        photos=["photo.jpg", "empty.jpg"],
    )
    samples = load_dataset(root).samples
    assert [(s.image_path.name, len(s.annotations)) for s in samples] == [
        ("photo.jpg", 1),
        ("empty.jpg", 0),
    ]


def test_ground_truth_wins(write_export: WriteExport) -> None:
    annotations = [
        {"result": []},
        {"result": [polygon(SQUARE)], "ground_truth": True},
        {"result": [polygon(SQUARE)] * 3, "was_cancelled": True},
    ]
    (sample,) = load_dataset(write_export(task(annotations=annotations))).samples
    assert len(sample.annotations) == 1


@pytest.mark.parametrize("form", [deepcopy, to_min], ids=["JSON", "JSON-MIN"])
def test_two_annotations_are_a_problem(
    write_export: WriteExport, form: Callable[[Any], Any]
) -> None:
    dataset, problems = read_dataset(write_export(*(form(task(polygon(SQUARE))) for _ in "ab")))
    assert "has 2 annotations; delete all but one" in problems[0].what
    assert problems[0].where == "project-1.json, task 12"
    assert len(dataset) == 0


def test_completions_as_before_version_1(write_export: WriteExport) -> None:
    old = {"id": 1, "data": {"image": "photo.jpg"}, "completions": [{"result": [polygon(SQUARE)]}]}
    assert len(load_dataset(write_export(old)).samples[0].annotations) == 1


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/3/0a1b2c3d-my%20cat.jpg",
        "/data/local-files/?d=pets%2Fmy%20cat.jpg",
        "/data/local-files/?d=pets/my cat.jpg",
        "http://127.0.0.1:8080/data/local-files/?d=pets/my%20cat.jpg",
        "https://example.org/photos/my%20cat.jpg?size=2",
        "s3://bucket/photos/my cat.jpg",
        "photos/my cat.jpg",
    ],
)
@pytest.mark.parametrize("place", ["my cat.jpg", "images/my cat.jpg"])
def test_photo_is_found_by_its_name(write_export: WriteExport, reference: str, place: str) -> None:
    root = write_export(task(polygon(SQUARE), photo=reference), photos=[place])
    assert load_dataset(root).samples[0].image_path == root / place


def test_upload_with_its_prefix_comes_first(write_export: WriteExport) -> None:
    root = write_export(task(), photos=["photo.jpg", "0a1b2c3d-photo.jpg"])
    assert load_dataset(root).samples[0].image_path.name == "0a1b2c3d-photo.jpg"


def test_photos_of_one_name_are_told_apart_by_their_folders(write_export: WriteExport) -> None:
    photos = ["a/photo.jpg", "b/photo.jpg"]
    root = write_export(task(photo="/data/local-files/?d=all/b/photo.jpg"), photos=photos)
    assert load_dataset(root).samples[0].image_path == root / "b/photo.jpg"
    _, problems = read_dataset(write_export(task(photo="photo.jpg"), photos=photos))
    assert "photo.jpg, of which there are 2" in problems[0].what


def test_splits_are_folders_or_names(write_export: WriteExport) -> None:
    write_export(task(polygon(SQUARE, "dog")), file="train/export.json", photos=["train/photo.jpg"])
    root = write_export(task(polygon(SQUARE, "ant")), file="val.json", photos=["val/photo.jpg"])
    assert available_splits(root) == ("train", "val")
    train = load_dataset(root, split="train")
    assert train.categories.names == ("ant", "dog")
    assert train.samples[0].image_path == root / "train/photo.jpg"


def test_two_exports_are_one_too_many(write_export: WriteExport) -> None:
    write_export(task(), file="project-1-a.json")
    with pytest.raises(DatasetError, match="several annotation files"):
        load_dataset(write_export(task(), file="project-1-b.json"))


@pytest.mark.parametrize(
    ("drawn", "what"),
    [
        (region("rectanglelabels", x=1, y=1, width=9, height=9), "is a rectangle, and a box alone"),
        (region("keypointlabels", x=1, y=1, width=1), "is a key point"),
        (region("polygonlabels", ["a", "b"], points=SQUARE), "must have one label"),
        (region("polygonlabels", "", points=SQUARE), "must have one label"),
        ({"type": "brush", "value": {"format": "rle", "rle": [1]}}, "must have one label"),
        (polygon(SQUARE, original_width=61), "was drawn on 61x40 pixels, but the photo is 60x40"),
        (polygon(SQUARE, image_rotation=90), "that was turned in Label Studio"),
        (polygon([[1, 1], [2, 2]]), "has 2 distinct vertices"),
        (polygon([[1, 1], [2, "x"], [3, 3]]), "with a point that is not two numbers"),
        (polygon(None), "with a point that is not two numbers"),
        (region("brushlabels", format="rle"), "is a brush without a list of bytes"),
        (region("brushlabels", format="rle", rle=[1, 256]), "is a brush without a list of bytes"),
        (region("brushlabels", format="rle", rle=[0, 0]), "a brush whose encoding ends too early"),
        (brush(np.ones((4, 4), np.bool_)), "has 64 values, but a photo of 60x40 pixels has 9600"),
        (brush(np.zeros(SIZE, np.bool_)), "is a brush without any pixel"),
        (region("ellipselabels", x="?", y=1, radiusX=1, radiusY=1), "is not a number"),
        (region("ellipselabels", x=float("nan"), y=1, radiusX=1, radiusY=1), "is not a number"),
        (region("ellipselabels", x=1, y=1, radiusX=0, radiusY=1), "has no area"),
    ],
)
def test_unsound_region_is_a_problem_with_its_place(
    write_export: WriteExport, drawn: dict[str, Any], what: str
) -> None:
    dataset, problems = read_dataset(write_export(task(polygon(SQUARE), drawn)))
    (problem,) = problems
    assert problem.where == "project-1.json, task 12, region 1"
    assert what in problem.what
    assert len(dataset.samples[0].annotations) == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"photo": "/data/upload/1/gone.jpg"}, "names the photo gone.jpg, which is missing"),
        ({"photo": "hello"}, "names 0 photos in its data"),
        ({"data": {"a": "a.jpg", "b": "b.jpg"}}, "names 2 photos in its data"),
        ({"photo": "data:image/png;base64,AAAA"}, "holds a copy of its photo"),
        ({"annotations": [{"result": None}]}, "has an annotation without a list of results"),
    ],
)
def test_unsound_task_is_a_problem(
    write_export: WriteExport, changes: dict[str, Any], what: str
) -> None:
    photo = changes.pop("photo", "photo.jpg")
    dataset, problems = read_dataset(
        write_export(task(polygon(SQUARE), id=1), task(polygon(SQUARE), photo=photo, **changes))
    )
    assert [problem.where for problem in problems] == ["project-1.json, task 12"]
    assert what in problems[0].what
    assert len(dataset) == 1


def test_other_json_is_not_taken_for_an_export(write_export: WriteExport) -> None:
    with pytest.raises(DatasetError, match="holds no annotations"):
        load_dataset(write_export({"data": {"image": "photo.jpg"}}))  # a list of tasks to import
    with pytest.raises(DatasetError, match="no annotations of the format “label-studio”"):
        load_dataset(write_export(), format="label-studio")
