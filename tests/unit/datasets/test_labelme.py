from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as PillowImage

from maskserve.datasets import available_splits, load_dataset, read_dataset

WriteLabelme = Callable[..., Path]

SIZE = (40, 60)


def shape(points: Any, kind: str | None = "polygon", **changes: Any) -> dict[str, Any]:
    values = {"label": "cat", "points": points, "group_id": None, "shape_type": kind, "flags": {}}
    return values | changes


def png(pixels: Any) -> str:
    buffer = BytesIO()
    PillowImage.fromarray(np.array(pixels, np.uint8)).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode()


SQUARE = [[5, 5], [15, 5], [15, 15], [5, 15]]
PIXELS = png([[255, 255, 0], [0, 255, 255]])


@pytest.fixture
def write_labelme(
    tmp_path: Path, write_photo: Callable[..., None], write_json: Callable[[Path, Any], None]
) -> WriteLabelme:
    def write(*shapes: Any, file: str = "photo.json", **changes: Any) -> Path:
        """A data set of one photo, 60 pixels wide and 40 high, with these shapes."""
        path = tmp_path / "pets" / file
        write_photo(path.with_suffix(".jpg"), SIZE)
        document: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": list(shapes),
            "imagePath": f"{path.stem}.jpg",
            "imageData": None,
            "imageHeight": 40,
            "imageWidth": 60,
        }
        write_json(path, document | changes)
        return tmp_path / "pets"

    return write


@pytest.mark.parametrize(
    ("drawn", "box", "area_px"),
    [
        (shape(SQUARE), [5, 5, 15, 15], 100),
        (shape(SQUARE, None), [5, 5, 15, 15], 100),
        (shape([[20, 30], [10, 10]], "rectangle"), [10, 10, 20, 30], 200),
        (shape([[30, 20], [30, 30]], "circle"), [20, 10, 40, 30], 314),
        (shape([[7, 3], [9, 4]], "mask", mask=PIXELS), [7, 3, 10, 5], 4),
    ],
)
def test_shapes_become_masks(
    write_labelme: WriteLabelme, drawn: dict[str, Any], box: list[int], area_px: int
) -> None:
    (sample,) = load_dataset(write_labelme(drawn)).samples
    (annotation,) = sample.annotations
    assert annotation.box_xyxy(SIZE).tolist() == box
    assert annotation.area_px(SIZE) == area_px


def test_group_joins_the_parts_of_an_instance(write_labelme: WriteLabelme) -> None:
    corner = [[0, 0], [2, 0], [2, 2], [0, 2]]
    root = write_labelme(
        shape(SQUARE, group_id=1),
        shape(corner, group_id=1),
        shape(corner, group_id=1, label="dog"),
        shape(SQUARE, group_id=2),
        shape([[30, 30], [32, 31]], "mask", mask=PIXELS, group_id=2),
        shape(corner),
        shape(corner),
    )
    (sample,) = load_dataset(root).samples
    assert [a.area_px(SIZE) for a in sample.annotations] == [104, 4, 104, 4, 4]
    assert [len(a.polygons) for a in sample.annotations] == [2, 1, 0, 1, 1]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any),
            st.integers(0, SIZE[0] - 9),
            st.integers(0, SIZE[1] - 9),
            st.sampled_from([None, 1, 2]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_masks_are_those_that_were_drawn(
    write_labelme: WriteLabelme,
    drawn: list[tuple[npt.NDArray[np.bool_], int, int, int | None]],
) -> None:
    shapes = []
    expected: dict[object, npt.NDArray[np.bool_]] = {}
    for number, (mask, top, left, group) in enumerate(drawn):
        bottom, right = top + mask.shape[0], left + mask.shape[1]
        points = [[left, top], [right - 1, bottom - 1]]
        picture = png(mask * np.uint8(255))
        shapes.append(shape(points, "mask", mask=picture, group_id=group))
        key = ("alone", number) if group is None else group
        expected.setdefault(key, np.zeros(SIZE, np.bool_))[top:bottom, left:right] |= mask
    (sample,) = load_dataset(write_labelme(*shapes)).samples
    for annotation, whole in zip(sample.annotations, expected.values(), strict=True):
        assert np.array_equal(annotation.mask(SIZE), whole)


def test_classes_of_all_splits_are_sorted_by_name(write_labelme: WriteLabelme) -> None:
    write_labelme(shape(SQUARE, label="dog"), file="train/a.json")
    write_labelme(shape(SQUARE, label="ant"), file="train/b.json")
    root = write_labelme(shape(SQUARE), file="val/c.json")
    assert available_splits(root) == ("train", "val")
    dataset = load_dataset(root, split="val")
    assert dataset.categories.names == ("ant", "cat", "dog")
    assert [a.class_index for a in dataset.samples[0].annotations] == [1]


def test_photo_without_shapes_is_kept_and_one_without_a_file_is_left_alone(
    write_labelme: WriteLabelme, write_photo: Callable[..., None]
) -> None:
    root = write_labelme()
    write_photo(root / "not_yet.jpg")
    (sample,) = load_dataset(root).samples
    assert sample.annotations == ()


@pytest.mark.parametrize("written", ["..\\photos\\p.jpg", "../photos/p.jpg"])
def test_photo_may_lie_elsewhere(
    write_labelme: WriteLabelme, write_photo: Callable[..., None], written: str
) -> None:
    root = write_labelme(shape(SQUARE), file="labels/p.json", imagePath=written)
    (root / "labels" / "p.jpg").unlink()
    write_photo(root / "photos" / "p.jpg", SIZE)
    (sample,) = load_dataset(root / "labels").samples
    assert sample.image_path.samefile(root / "photos" / "p.jpg")


def test_file_that_was_moved_with_its_photo_still_finds_it(write_labelme: WriteLabelme) -> None:
    root = write_labelme(shape(SQUARE), imagePath="C:\\old\\place\\photo.jpg")
    assert load_dataset(root).samples[0].image_path == root / "photo.jpg"


@pytest.mark.parametrize(
    ("drawn", "what"),
    [
        (shape([[1, 1]], "point"), "has the shape “point”; known are polygon, rectangle, circle"),
        (shape([[1, 1], [9, 9]], "line"), "has the shape “line”"),
        (shape(SQUARE, "linestrip"), "has the shape “linestrip”"),
        (shape(SQUARE, "rectangle"), "is a rectangle with 4 points, but must have 2"),
        (shape([[1, 1]], "circle"), "is a circle with 1 points, but must have 2"),
        (shape([[1, 1], [1, 1]], "circle"), "has 1 distinct vertices"),
        (shape([[1, 1], [2, 2]]), "has 2 distinct vertices"),
        (shape([[1, 1], [2, 2], ["x", 3]]), "with a point that is not two numbers"),
        (shape([[1, 1], [2, 2], [3]]), "with a point that is not two numbers"),
        (shape(None), "is a polygon with a point that is not two numbers"),
        (shape([[1, 1], [2, 2], [None, 3]]), "with a coordinate that is not a number"),
        (shape(SQUARE, label=""), "has no label"),
        (shape(SQUARE, label=7), "has no label"),
        (shape([[7, 3], [9, 4]], "mask"), "is a mask without a picture"),
        (shape([[7, 3], [9, 4]], "mask", mask="%"), "is not in base64"),
        (shape([[7, 3], [9, 4]], "mask", mask="AAAA"), "is not a JPEG, PNG or WebP"),
        (shape([[59, 3], [61, 4]], "mask", mask=PIXELS), "reaches beyond the photo of 60x40"),
        (shape([[7, 3], [7, 3]], "mask", mask=png([[0]])), "is a mask without any pixel"),
    ],
)
def test_unsound_shape_is_a_problem_with_its_place(
    write_labelme: WriteLabelme, drawn: dict[str, Any], what: str
) -> None:
    dataset, problems = read_dataset(write_labelme(shape(SQUARE), drawn))
    (problem,) = problems
    assert problem.where == "photo.json, shape 1"
    assert what in problem.what
    assert len(dataset.samples[0].annotations) == 1


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"imagePath": "gone.jpg"}, "gone.jpg", "is missing"),
        ({"imagePath": "gone.jpg", "imageData": "AA"}, "gone.jpg", "holds a copy (imageData)"),
        (
            {"imageHeight": 60, "imageWidth": 40},
            "photo.jpg",
            "is 60x40 pixels when upright, but was annotated as 40x60",
        ),
        ({"shapes": None}, "photo.json", "is not a Labelme file"),
        ({"shapes": [1]}, "photo.json", "is not a Labelme file"),
        ({"imagePath": None}, "photo.json", "is not a Labelme file"),
    ],
)
def test_unsound_file_is_a_problem(
    write_labelme: WriteLabelme, changes: dict[str, Any], where: str, what: str
) -> None:
    write_labelme(shape(SQUARE), file="good.json")
    dataset, problems = read_dataset(write_labelme(shape(SQUARE), **changes))
    (problem,) = problems
    assert problem.where == where
    assert what in problem.what
    assert len(dataset) == 1


def test_file_that_is_not_json_is_a_problem(write_labelme: WriteLabelme) -> None:
    root = write_labelme(shape(SQUARE))
    (root / "torn.json").write_text("{")
    _, problems = read_dataset(root)
    assert [str(problem) for problem in problems] == ["torn.json: cannot be read as JSON"]


def test_size_need_not_be_listed(write_labelme: WriteLabelme) -> None:
    root = write_labelme(shape(SQUARE), imageHeight=None, imageWidth=None)
    assert load_dataset(root).samples[0].image_size == SIZE
