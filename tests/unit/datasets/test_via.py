from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskserve.core.errors import DatasetError
from maskserve.datasets import Dataset, load_dataset, read_dataset

SQUARE = {"name": "polygon", "all_points_x": [5, 15, 15, 5], "all_points_y": [5, 5, 15, 15]}

WriteVia = Callable[..., Path]


def region(shape: dict[str, Any], attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes or {}}


@pytest.fixture
def write_via(
    tmp_path: Path,
    write_photo: Callable[..., None],
    write_json: Callable[[Path, Any], None],
) -> WriteVia:
    def write(
        *regions: dict[str, Any], as_dict: bool = False, project: bool = False, split: str = ""
    ) -> Path:
        """A data set “toys” of one photo, 60 pixels wide and 40 high, with these regions."""
        root = tmp_path / "toys"
        folder = root / split
        write_photo(folder / "photo.jpg", (40, 60))
        numbered = {str(i): r for i, r in enumerate(regions)} if as_dict else list(regions)
        entries = {"photo.jpg123": {"filename": "photo.jpg", "size": 123, "regions": numbered}}
        document = {"_via_settings": {}, "_via_img_metadata": entries} if project else entries
        write_json(folder / ("via_project.json" if project else "via_region_data.json"), document)
        return root

    return write


def areas(dataset: Dataset) -> list[int]:
    return [a.area_px(s.image_size) for s in dataset.samples for a in s.annotations]


@pytest.mark.parametrize("as_dict", [True, False], ids=["1.x dict", "2.x list"])
@pytest.mark.parametrize("project", [True, False], ids=["project", "export"])
def test_every_version_of_the_file_reads_alike(
    write_via: WriteVia, as_dict: bool, project: bool
) -> None:
    dataset = load_dataset(write_via(region(SQUARE), as_dict=as_dict, project=project))
    assert dataset.name == "toys"
    assert dataset.categories.names == ("toys",)
    (sample,) = dataset.samples
    assert sample.image_path.name == "photo.jpg"
    assert sample.image_size == (40, 60)
    assert areas(dataset) == [100]


@pytest.mark.parametrize(
    ("shape", "expected_area"),
    [
        (SQUARE, 100),
        ({**SQUARE, "name": "polyline"}, 100),
        ({"name": "rect", "x": 5, "y": 5, "width": 20, "height": 10}, 200),
        ({"name": "circle", "cx": 30, "cy": 20, "r": 12}, np.pi * 144),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 20, "ry": 5}, np.pi * 100),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 15, "ry": 5, "theta": 1.2}, np.pi * 75),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_every_shape_covers_its_area(
    write_via: WriteVia, shape: dict[str, Any], expected_area: float
) -> None:
    assert areas(load_dataset(write_via(region(shape)))) == pytest.approx([expected_area], rel=0.03)


def test_theta_turns_an_ellipse_clockwise_on_the_screen(write_via: WriteVia) -> None:
    shape = {"name": "ellipse", "cx": 30, "cy": 20, "rx": 18, "ry": 3, "theta": np.pi / 4}
    (sample,) = load_dataset(write_via(region(shape))).samples
    mask = sample.annotations[0].mask(sample.image_size)
    assert mask[30, 40]
    assert not mask[10, 40]


def test_outline_is_clipped_to_the_photo(write_via: WriteVia) -> None:
    over = {"name": "rect", "x": 50, "y": 30, "width": 20, "height": 20}
    touching = {"name": "polygon", "all_points_x": [50, 60, 60], "all_points_y": [40, 40, 20]}
    dataset = load_dataset(write_via(region(over), region(touching)))
    for annotation in dataset.samples[0].annotations:
        vertices = np.concatenate(annotation.polygons)
        assert vertices.min() >= 0
        assert np.all(vertices.max(axis=0) <= (60, 40))
    assert areas(dataset) == pytest.approx([100, 100], rel=0.1)


def test_turned_photo_takes_outlines_as_drawn_on_the_upright_one(
    write_via: WriteVia, write_photo: Callable[..., None]
) -> None:
    low = {"name": "rect", "x": 5, "y": 45, "width": 10, "height": 10}
    root = write_via(region(low))
    write_photo(root / "photo.jpg", (40, 60), orientation=6)
    (sample,) = load_dataset(root).samples
    assert sample.image_size == (60, 40)
    assert sample.annotations[0].area_px(sample.image_size) == 100


def test_photo_without_regions_is_kept(write_via: WriteVia) -> None:
    (sample,) = load_dataset(write_via()).samples
    assert sample.annotations == ()


@pytest.mark.parametrize(
    ("cat", "dog"),
    [
        ({"kind": "cat"}, {"kind": " dog "}),
        ({"kind": {"cat": True}}, {"kind": {"dog": True, "cat": False}}),
        ({"kind": "cat", "note": ""}, {"kind": "dog", "note": {}}),
    ],
    ids=["text", "check boxes", "empty others"],
)
def test_class_is_the_value_of_the_attribute_that_is_filled_in(
    write_via: WriteVia, cat: dict[str, Any], dog: dict[str, Any]
) -> None:
    dataset = load_dataset(write_via(region(SQUARE, dog), region(SQUARE, cat)))
    assert dataset.categories.names == ("cat", "dog")
    assert [a.class_index for a in dataset.samples[0].annotations] == [1, 0]


def test_class_keeps_its_index_in_a_split_without_the_others(write_via: WriteVia) -> None:
    write_via(region(SQUARE, {"kind": "cat"}), region(SQUARE, {"kind": "dog"}), split="train")
    root = write_via(region(SQUARE, {"kind": "dog"}), split="val")
    val = load_dataset(root, split="val")
    assert val.categories == load_dataset(root, split="train").categories
    assert val.categories.names[val.samples[0].annotations[0].class_index] == "dog"


def test_several_attributes_ask_for_a_choice(write_via: WriteVia) -> None:
    root = write_via(region(SQUARE, {"kind": "cat", "colour": "red"}))
    with pytest.raises(DatasetError, match="several attributes: colour, kind"):
        load_dataset(root)
    assert load_dataset(root, class_attribute="colour").categories.names == ("red",)


def test_class_without_attribute_can_be_named(write_via: WriteVia) -> None:
    dataset = load_dataset(write_via(region(SQUARE)), class_name="balloon")
    assert dataset.categories.names == ("balloon",)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (region({"name": "point", "cx": 1, "cy": 1}), "has the shape “point”"),
        (region({}), "has the shape “None”"),
        ("nonsense", "has the shape “None”"),
        (region({**SQUARE, "all_points_x": [1, 2]}), "not a number"),
        (region({**SQUARE, "all_points_x": [1, 2, "x", 4]}), "not a number"),
        (region({"name": "polygon", "all_points_x": [1, 2, 3]}), "without all_points_y"),
        (region({"name": "circle", "cx": 9, "cy": 9, "r": 0}), "is a circle with r = 0"),
        (region({"name": "rect", "x": 1, "y": 1, "width": -3, "height": 2}), "width = -3"),
        (region({"name": "ellipse", "cx": 9, "cy": 9, "rx": 1, "ry": 2, "theta": 1e999}), "theta"),
        (region({"name": "circle", "cx": 99, "cy": 9, "r": 5}), "lies outside the photo"),
        (region({"name": "polygon", "all_points_x": [], "all_points_y": []}), "has 0 distinct"),
    ],
)
def test_unsound_region_is_a_problem_with_its_place(
    write_via: WriteVia, bad: Any, what: str
) -> None:
    dataset, problems = read_dataset(write_via(region(SQUARE), bad, split="train"), split="train")
    (problem,) = problems
    assert problem.where == "train/photo.jpg, region 1"
    assert what in problem.what
    assert areas(dataset) == [100]


@pytest.mark.parametrize("value", [{}, {"kind": ""}, {"kind": {"cat": True, "dog": True}}])
def test_region_without_exactly_one_class_is_a_problem(
    write_via: WriteVia, value: dict[str, Any]
) -> None:
    _, problems = read_dataset(write_via(region(SQUARE, {"kind": "cat"}), region(SQUARE, value)))
    assert [problem.what for problem in problems] == [
        "does not have one value of “kind”, which names its class"
    ]


def test_all_problems_are_told_at_once(
    tmp_path: Path, write_photo: Callable[..., None], write_json: Callable[[Path, Any], None]
) -> None:
    write_photo(tmp_path / "good.jpg")
    (tmp_path / "text.jpg").write_text("no photo")
    point = region({"name": "point"})
    entries = [
        {"filename": "good.jpg", "regions": [point, region(SQUARE), point]},
        {"filename": "good.jpg", "regions": []},
        {"filename": "gone.jpg", "regions": []},
        {"filename": "text.jpg", "regions": []},
    ]
    write_json(tmp_path / "via_region_data.json", {str(i): e for i, e in enumerate(entries)})
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    assert [problem.where for problem in caught.value.problems] == [
        "good.jpg, region 0",
        "good.jpg, region 2",
        "good.jpg",
        "gone.jpg",
        "text.jpg",
    ]
    assert "5 problems" in str(caught.value)


def test_two_annotation_files_in_a_folder_are_ambiguous(
    write_via: WriteVia, write_json: Callable[[Path, Any], None]
) -> None:
    root = write_via(region(SQUARE), project=True)
    write_json(root / "older.json", {"a": {"filename": "photo.jpg", "regions": []}})
    with pytest.raises(DatasetError, match=r"older\.json, via_project\.json"):
        load_dataset(root)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '{"a": {"filename": "x"}}'])
def test_broken_file_is_named(write_via: WriteVia, text: str) -> None:
    root = write_via(region(SQUARE))
    (root / "via_region_data.json").write_text(text)
    with pytest.raises(DatasetError, match=r"via_region_data\.json is not"):
        load_dataset(root)


def test_byte_order_mark_does_no_harm(write_via: WriteVia) -> None:
    root = write_via(region(SQUARE))
    file = root / "via_region_data.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load_dataset(root)) == 1


@pytest.mark.parametrize(("split", "photos", "outlines"), [("train", 61, 255), ("val", 13, 50)])
def test_balloon_data_set_is_read_whole(
    shared_data: Path, split: str, photos: int, outlines: int
) -> None:
    dataset = load_dataset(shared_data / "balloon", split=split)
    assert dataset.name == f"balloon {split}"
    assert dataset.categories.names == ("balloon",)
    assert len(dataset) == photos
    assert len(areas(dataset)) == outlines
    assert min(areas(dataset)) > 50
