from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskserve.core.errors import DatasetError
from maskserve.datasets import available_splits, load_dataset, read_dataset

WriteYolo = Callable[..., Path]

SQUARE = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"


@pytest.fixture
def write_yolo(tmp_path: Path, write_photo: Callable[..., None]) -> WriteYolo:
    def write(
        *lines: str,
        settings: str = "train: images/train\nnames: [cat, dog]\n",
        photo: str = "images/train/photo.jpg",
        labels: str = "labels/train/photo.txt",
    ) -> Path:
        """A data set of one photo, 60 pixels wide and 40 high, with these lines of labels."""
        root = tmp_path / "pets"
        write_photo(root / photo, (40, 60))
        (root / "data.yaml").write_text(settings, encoding="utf-8")
        (root / labels).parent.mkdir(parents=True, exist_ok=True)
        (root / labels).write_text("\n".join(lines), encoding="utf-8")
        return root

    return write


@pytest.mark.parametrize(
    ("settings", "photo", "labels"),
    [
        ("train: images/train", "images/train/photo.jpg", "labels/train/photo.txt"),
        ("path: .\ntrain: images/train", "images/train/photo.jpg", "labels/train/photo.txt"),
        ("path: pets\ntrain: images/train", "images/train/photo.jpg", "labels/train/photo.txt"),
        ("path: in\ntrain: images", "in/images/photo.jpg", "in/labels/photo.txt"),
        ("train: images/train/", "images/train/a/b/photo.PNG", "labels/train/a/b/photo.txt"),
        ("train: ../train/images", "train/images/photo.jpg", "train/labels/photo.txt"),
        ("train: images/images", "images/images/photo.jpg", "images/labels/photo.txt"),
        ("train: photos", "photos/photo.jpg", "photos/photo.txt"),
    ],
)
def test_usual_layouts_are_found(
    write_yolo: WriteYolo, settings: str, photo: str, labels: str
) -> None:
    root = write_yolo(SQUARE, settings=f"{settings}\nnames: [cat]\n", photo=photo, labels=labels)
    (sample,) = load_dataset(root, split="train").samples
    assert sample.annotations[0].box_xyxy((40, 60)).tolist() == [6, 4, 30, 20]


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}", "\n  1: dog\n  0: cat"])
def test_names_are_a_list_or_numbered(write_yolo: WriteYolo, names: str) -> None:
    root = write_yolo(f"1{SQUARE[1:]}", settings=f"train: images\nval: images\nnames: {names}\n")
    assert available_splits(root) == ("train", "val")
    dataset = load_dataset(root, split="val")
    assert dataset.categories.names == ("cat", "dog")
    assert [a.class_index for a in dataset.samples[0].annotations] == [1]


def test_photo_without_labels_has_no_instance(
    write_yolo: WriteYolo, write_photo: Callable[..., None]
) -> None:
    root = write_yolo("", "  ")
    write_photo(root / "images/train/other.png")
    assert [s.annotations for s in load_dataset(root, split="train").samples] == [(), ()]


def test_coordinates_are_shares_of_the_upright_photo(
    write_yolo: WriteYolo, write_photo: Callable[..., None]
) -> None:
    root = write_yolo(SQUARE)
    write_photo(root / "images/train/photo.jpg", (40, 60), orientation=6)
    (sample,) = load_dataset(root, split="train").samples
    assert sample.image_size == (60, 40)
    assert sample.annotations[0].polygons[0].max(axis=0).tolist() == [20, 30]


def test_vertex_a_little_outside_is_clipped(write_yolo: WriteYolo) -> None:
    root = write_yolo("0 -0.005 0 1.005 0 1.005 1 -0.005 1")
    (sample,) = load_dataset(root, split="train").samples
    assert sample.annotations[0].area_px((40, 60)) == 40 * 60
    assert np.all(sample.annotations[0].polygons[0] >= 0)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a bounding box, which alone cannot train or test masks"),
        ("0 0.1 0.1 0.5 0.1 0.5", "has an odd number of coordinates"),
        ("0 0.1 0.1 0.5 0.1 0.5 x", "has a coordinate that is not a number"),
        ("0 0.1 0.1 0.5 0.1 0.5 nan", "has a coordinate that is not a number"),
        ("0 6 4 30 4 30 20", "has a coordinate outside 0..1"),
        ("0 0.1 0.1", "has 1 distinct vertices"),
        ("0", "has 0 distinct vertices"),
        ("2 0.1 0.1 0.5 0.1 0.5 0.5", "is of class 2, but data.yaml numbers its 2 classes from 0"),
        ("-1 0.1 0.1 0.5 0.1 0.5 0.5", "begins with “-1”, which is not the number of a class"),
        ("cat 0.1 0.1 0.5 0.1 0.5 0.5", "begins with “cat”"),
    ],
)
def test_unsound_line_is_a_problem_with_its_place(
    write_yolo: WriteYolo, line: str, what: str
) -> None:
    dataset, problems = read_dataset(write_yolo(SQUARE, "", line), split="train")
    (problem,) = problems
    assert problem.where == "labels/train/photo.txt, line 3"
    assert what in problem.what
    assert len(dataset.samples[0].annotations) == 1


def test_unsound_file_is_a_problem(write_yolo: WriteYolo) -> None:
    root = write_yolo(SQUARE)
    (root / "images/train/torn.jpg").write_text("torn")
    (root / "images/train/scan.tif").write_text("II*")
    (root / "labels/train/gone.txt").write_text(SQUARE)
    (root / "labels/train/photo.txt").write_bytes(b"\xff\xfe\xff")
    dataset, problems = read_dataset(root, split="train")
    assert not dataset.samples
    assert {problem.where: problem.what.partition(":")[0] for problem in problems} == {
        "images/train/scan.tif": "is not a JPEG, PNG or WebP photo",
        "images/train/torn.jpg": "is not a JPEG, PNG or WebP photo",
        "labels/train/gone.txt": "has no photo in images/train",
        "labels/train/photo.txt": "cannot be read",
    }


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("names: [a\n", "is not YAML"),
        ("train: images\n", "does not describe a YOLO data set"),
        ("- train\n", "does not describe a YOLO data set"),
        ("train: images\nnames: cat\n", "“names” must be a list, or number the classes"),
        ("train: images\nnames: {1: cat}\n", "“names” must be a list, or number the classes"),
        ("train: images\nnames: [cat, cat]\n", "names are not unique"),
        ("train: nowhere\nnames: [cat]\n", "There is no folder .*nowhere, which .*data.yaml names"),
        ("train: [a, b]\nnames: [cat]\n", "“train” must be one folder of photos, not"),
        ("train: train.txt\nnames: [cat]\n", "“train” must be one folder of photos, not"),
    ],
)
def test_unsound_settings_are_refused(write_yolo: WriteYolo, settings: str, what: str) -> None:
    with pytest.raises(DatasetError, match=what):
        load_dataset(write_yolo(SQUARE, settings=settings), split="train")


def test_labels_alone_are_not_recognised(write_yolo: WriteYolo) -> None:
    root = write_yolo(SQUARE)
    (root / "data.yaml").unlink()
    with pytest.raises(DatasetError, match="no annotations of a known format"):
        load_dataset(root, split="train")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["path", "train", "names"]),
        st.sampled_from(
            ["", "[]", "{}", "[[]]", "{0: }", "{a: b}", "-1", "../..", ":", "yes", "\x00"]
        ),
    ),
    st.lists(st.text("01 .-+enaf_\n\t²", max_size=20)),
)
def test_damaged_labels_are_told_in_our_own_words(
    write_yolo: WriteYolo, changes: dict[str, str], lines: list[str]
) -> None:
    values = {"path": ".", "train": "images/train", "names": "[cat]", **changes}
    document = "".join(f"{key}: {value}\n" for key, value in values.items())
    root = write_yolo(SQUARE, *lines, settings=document)
    try:
        dataset, _ = read_dataset(root, split="train")
    except DatasetError:
        return
    for sample in dataset.samples:
        assert all(annotation.area_px(sample.image_size) > 0 for annotation in sample.annotations)
