from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as PillowImage

from maskserve.core.errors import DatasetError
from maskserve.core.masks import encode_rle
from maskserve.datasets import load_dataset, read_dataset

WriteCoco = Callable[..., Path]

SQUARE = [[5, 5, 15, 5, 15, 15, 5, 15]]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 3, "category_id": 7, "segmentation": SQUARE, **changes}


@pytest.fixture
def write_coco(
    tmp_path: Path, write_photo: Callable[..., None], write_json: Callable[[Path, Any], None]
) -> WriteCoco:
    def write(
        *annotations: Any,
        images: list[dict[str, Any]] | None = None,
        categories: list[dict[str, Any]] | None = None,
        file: str = "instances.json",
        photos: str = "images",
    ) -> Path:
        """A data set of one photo, 60 pixels wide and 40 high, with these annotations."""
        root = tmp_path / "pets"
        write_photo(root / photos / "photo.jpg", (40, 60))
        image = {"id": 3, "file_name": "photo.jpg", "height": 40, "width": 60}
        document = {
            "images": [image] if images is None else images,
            "annotations": list(annotations),
            "categories": CATEGORIES if categories is None else categories,
        }
        write_json(root / file, document)
        return root

    return write


@pytest.mark.parametrize(
    ("file", "photos", "split"),
    [
        ("instances.json", "images", None),
        ("annotations.json", ".", None),
        ("my_labels.json", "photos/../images", None),
        ("annotations/instances_default.json", "images", None),
        ("annotations/instances_val2017.json", "val2017", "val2017"),
        ("annotations/instances_night.json", "images/night", "night"),
        ("annotations/val.json", "images/val", "val"),
        ("train.json", "images", "train"),
        ("val.json", "val", "val"),
        ("valid/_annotations.coco.json", "valid", "valid"),
        ("odd/labels.json", "odd/images", "odd"),
    ],
)
def test_usual_layouts_are_found(
    write_coco: WriteCoco, file: str, photos: str, split: str | None
) -> None:
    root = write_coco(annotation(), file=file, photos=photos)
    dataset = load_dataset(root, split=split)
    assert dataset.name == ("pets" if split is None else f"pets {split}")
    assert dataset.samples[0].image_path.is_file()


def test_captions_beside_the_instances_are_left_alone(
    write_coco: WriteCoco, write_json: Callable[[Path, Any], None]
) -> None:
    root = write_coco(annotation(), file="annotations/instances_val.json", photos="val")
    keypoints: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    write_json(root / "annotations/person_keypoints_val.json", keypoints)
    assert len(load_dataset(root, split="val")) == 1


def test_two_files_for_the_same_photos_are_ambiguous(
    write_coco: WriteCoco,
) -> None:
    write_coco(annotation(), file="one.json")
    root = write_coco(annotation(), file="two.json")
    with pytest.raises(DatasetError, match=r"one\.json, two\.json"):
        load_dataset(root)


def test_classes_are_ordered_by_id_whatever_the_gaps(write_coco: WriteCoco) -> None:
    root = write_coco(
        annotation(category_id=90), annotation(id=2, category_id=7), categories=CATEGORIES[::-1]
    )
    dataset = load_dataset(root)
    assert dataset.categories.names == ("cat", "dog")
    assert dataset.categories.category_ids == (7, 90)
    assert [a.class_index for a in dataset.samples[0].annotations] == [1, 0]
    assert dataset.samples[0].image_id == 3


def test_photo_without_annotations_is_kept(write_coco: WriteCoco) -> None:
    (sample,) = load_dataset(write_coco()).samples
    assert sample.annotations == ()


@pytest.mark.parametrize("name", ["../label-studio/upload/3/photo.jpg", "D:\\work\\photo.jpg"])
def test_photo_that_was_moved_is_found_by_its_name(write_coco: WriteCoco, name: str) -> None:
    root = write_coco(annotation(), images=[{"id": 3, "file_name": name}])
    assert load_dataset(root).samples[0].image_path == root / "images" / "photo.jpg"


def test_polygons_of_an_instance_are_united(write_coco: WriteCoco) -> None:
    parts = [*SQUARE, [10, 5, 25, 5, 25, 15, 10, 15], [40, 20, 50, 20, 50, 30, 40, 30]]
    (sample,) = load_dataset(write_coco(annotation(segmentation=parts))).samples
    assert sample.annotations[0].area_px(sample.image_size) == 200 + 100


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_both_forms_of_rle_give_the_mask_back(mask: npt.NDArray[np.bool_]) -> None:
    height, width = mask.shape
    flat = [False, *mask.ravel(order="F").tolist()]
    edges = [i for i in range(1, len(flat)) if flat[i] != flat[i - 1]]
    runs = np.diff([0, *(edge - 1 for edge in edges), mask.size]).tolist()
    plain = {"size": [height, width], "counts": runs}
    with TemporaryDirectory() as folder:
        root = Path(folder)
        PillowImage.new("RGB", (width, height)).save(root / "photo.png")
        crowds = [
            annotation(id=i, segmentation=rle, iscrowd=1)
            for i, rle in enumerate([plain, encode_rle(mask)])
        ]
        document = {
            "images": [{"id": 3, "file_name": "photo.png"}],
            "annotations": crowds,
            "categories": CATEGORIES,
        }
        (root / "instances.json").write_text(json.dumps(document))
        dataset, problems = read_dataset(root)
    if not mask.any():
        assert [p.what for p in problems] == ["has a mask without any pixel"] * 2
        return
    assert not problems
    for found in dataset.samples[0].annotations:
        assert found.is_crowd
        assert np.array_equal(found.mask(mask.shape), mask)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"segmentation": None}, "has no segmentation; a bounding box alone"),
        ({"segmentation": []}, "has no segmentation"),
        ({"segmentation": "x"}, "neither a list of polygons nor an RLE"),
        ({"segmentation": [[1, 2, 3]]}, "not a list of x, y, x, y"),
        ({"segmentation": [5, 5, 15, 5, 15, 15]}, "not a list of x, y, x, y"),
        ({"segmentation": [[1, 2, 3, "x", 9, 9]]}, "not a number"),
        ({"segmentation": [[1, 2, 3, 4]]}, "has 2 distinct vertices"),
        ({"segmentation": {"size": [40, 60], "counts": [5, 5]}}, "do not add up to 40 x 60"),
        ({"segmentation": {"size": [40, 60], "counts": "zzzz"}}, "do not add up"),
        ({"segmentation": {"size": [40, 60], "counts": ""}}, "do not add up"),
        ({"segmentation": {"size": [40, 60]}}, "do not add up"),
        ({"segmentation": {"size": [60, 40], "counts": [2400]}}, "of size [60, 40] in a photo"),
        ({"category_id": 8}, "belongs to category 8, which is not listed"),
        ({"category_id": None}, "has no whole number as its category_id"),
    ],
)
def test_unsound_annotation_is_a_problem_with_its_place(
    write_coco: WriteCoco, changes: dict[str, Any], what: str
) -> None:
    dataset, problems = read_dataset(write_coco(annotation(), annotation(id=2, **changes)))
    (problem,) = problems
    assert problem.where == "images/photo.jpg, annotation 2"
    assert what in problem.what
    assert len(dataset.samples[0].annotations) == 1


@pytest.mark.parametrize(
    ("stray", "what"),
    [
        (annotation(id=2, image_id=4), "belongs to image 4, which is not listed"),
        (annotation(id=2, image_id=None), "has no whole number as its image_id"),
        (annotation(), "has the id 1 of another one"),
        (annotation(id=None), "has no whole number as its id"),
    ],
)
def test_stray_annotation_is_a_problem(
    write_coco: WriteCoco, stray: dict[str, Any], what: str
) -> None:
    dataset, problems = read_dataset(write_coco(annotation(), stray))
    (problem,) = problems
    assert problem.where == f"instances.json, annotation {stray['id']}"
    assert problem.what == what
    assert len(dataset.samples[0].annotations) == 1


@pytest.mark.parametrize(
    ("image", "what"),
    [
        ({"id": 3, "file_name": "photo.jpg"}, "has the id 3 of another one"),
        ({"id": 4, "file_name": "gone.jpg"}, "is missing"),
        ({"id": 4}, "has no file_name"),
        ({"file_name": "photo.jpg"}, "has no whole number as its id"),
        (
            {"id": 4, "file_name": "photo.jpg", "width": 40, "height": 60},
            "is 60x40 pixels when upright, but listed as 40x60",
        ),
    ],
)
def test_unsound_photo_is_a_problem(
    write_coco: WriteCoco, image: dict[str, Any], what: str
) -> None:
    good = {"id": 3, "file_name": "photo.jpg"}
    dataset, problems = read_dataset(write_coco(annotation(), images=[good, image]))
    assert [problem.what for problem in problems] == [what]
    assert len(dataset) == 1


@pytest.mark.parametrize(
    ("categories", "what"),
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "category_ids are not unique"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "names are not unique"),
        ([{"id": 1}], "without a name"),
        ([{"name": "a"}], "has no whole number as its id"),
    ],
)
def test_categories_that_contradict_themselves_are_refused(
    write_coco: WriteCoco, categories: list[dict[str, Any]], what: str
) -> None:
    with pytest.raises(DatasetError, match=what):
        load_dataset(write_coco(categories=categories))


def test_coco_sample_is_read_whole(shared_data: Path) -> None:
    dataset = load_dataset(shared_data / "coco-mini")
    annotations = [a for sample in dataset.samples for a in sample.annotations]
    assert len(dataset) == 158
    assert len(dataset.categories) == 80
    assert len(annotations) == 1389
    assert sum(a.is_crowd for a in annotations) == 17
    assert any(not sample.annotations for sample in dataset.samples)
