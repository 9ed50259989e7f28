from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskserve.core.errors import DatasetError
from maskserve.datasets import check_dataset
from maskserve.datasets.synthetic import write_via_dataset


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    root = tmp_path / "toys"
    write_via_dataset(root, train=2, val=1, size=(48, 64), instances_per_photo=2)
    return root


class Photo:
    """One photo's entry in a VIA file, to be changed."""

    def __init__(self, root: Path, split: str, name: str) -> None:
        self.file = root / split / "via_region_data.json"
        self.name = name

    @property
    def regions(self) -> dict[str, Any]:
        entries = json.loads(self.file.read_text())
        found: dict[str, Any] = entries[self.name]["regions"]
        return found

    @regions.setter
    def regions(self, regions: dict[str, Any]) -> None:
        entries = json.loads(self.file.read_text())
        entries[self.name]["regions"] = regions
        self.file.write_text(json.dumps(entries))


def polygon(*points: tuple[float, float]) -> dict[str, Any]:
    x, y = zip(*points, strict=True)
    shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
    return {"shape_attributes": shape, "region_attributes": {}}


def errors(root: Path, *, split: str | None = None) -> list[str]:
    return list(map(str, check_dataset(root, split=split).errors))


def warnings(root: Path) -> list[str]:
    report = check_dataset(root)
    assert report.errors == ()
    return list(map(str, report.warnings))


def test_sound_data_set_has_no_problem(toys: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = check_dataset(toys, on_progress=lambda *step: steps.append(step))
    assert (report.errors, report.warnings) == ((), ())
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_splits_are_counted(toys: Path) -> None:
    train, val = check_dataset(toys).splits
    assert (train.name, train.photos, train.instances, train.per_class) == (
        "train",
        2,
        4,
        {"toys": 4},
    )
    assert (val.name, val.photos, val.instances, val.empty_photos) == ("val", 1, 2, 0)
    assert (val.width_px.least, val.height_px.largest) == (64, 48)


def test_errors_of_all_splits_and_kinds_are_collected(toys: Path) -> None:
    shutil.copy(toys / "train/shapes_000.png", toys / "val/shapes_002.png")
    damaged = toys / "train/shapes_001.png"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    photo = Photo(toys, "train", "shapes_000.png")
    point = {"shape_attributes": {"name": "point"}, "region_attributes": {}}
    photo.regions = {**photo.regions, "2": photo.regions["0"], "3": point}
    first, second, third, fourth = errors(toys)
    assert first.startswith("train/shapes_000.png, region 3: has the shape “point”")
    assert second.startswith("train/shapes_000.png, instance 3 at x ")
    assert second.endswith(": has the same mask as instance 1")
    assert third.startswith("train/shapes_001.png: cannot be read")
    assert fourth.startswith("val/shapes_002.png: is the same file as train/shapes_000.png: a leak")
    assert errors(toys, split="val") == []


@pytest.mark.parametrize(
    ("region", "what"),
    [
        (polygon((100, 1), (130, 1), (130, 20)), "lies outside the photo of 64x48 pixels"),
        (polygon((5.0, 5), (5.2, 5), (5.1, 5.2)), "is too small to cover a pixel"),
        (polygon((5, 5), (9, 9), (7, 7)), "has no area"),
        (polygon((5, 5), (9, 9)), "has 2 distinct vertices"),
    ],
)
def test_outline_that_is_none(toys: Path, region: dict[str, Any], what: str) -> None:
    photo = Photo(toys, "val", "shapes_002.png")
    photo.regions = {**photo.regions, "9": region}
    (error,) = errors(toys)
    assert error.startswith(f"val/shapes_002.png, region 9: {what}")


@pytest.mark.parametrize(
    ("region", "what"),
    [
        (polygon((10, 10), (40, 40), (40, 10), (10, 40)), "crosses itself at x=25.0, y=25.0"),
        (polygon((-7.5, 10), (40, 10), (40, 40)), "reaches 7.5 px beyond the photo"),
    ],
)
def test_outline_that_is_doubtful(toys: Path, region: dict[str, Any], what: str) -> None:
    Photo(toys, "val", "shapes_002.png").regions = {"0": region}
    (warning,) = warnings(toys)
    assert warning.startswith("val/shapes_002.png, instance 1 at x ")
    assert what in warning


def test_instances_that_are_nearly_the_same_are_doubtful(toys: Path) -> None:
    Photo(toys, "val", "shapes_002.png").regions = {
        "0": polygon((10, 10), (40, 10), (40, 40), (10, 40)),
        "1": polygon((10, 10), (41, 10), (41, 40), (10, 40)),
    }
    (warning,) = warnings(toys)
    assert warning.endswith("is nearly the same as instance 1 (IoU 0.97)")


def save_changed(source: Path, target: Path, change: str) -> None:
    with Image.open(source) as photo:
        if change == "smaller":
            photo.resize((128, 96)).save(target)
        elif change == "mirrored":
            photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target)
        else:
            photo.save(target, format="JPEG", quality=60)


@pytest.mark.parametrize("change", ["smaller", "mirrored", "saved anew"])
def test_copy_in_another_split_is_a_leak(tmp_path: Path, change: str) -> None:
    toys = tmp_path / "toys"
    write_via_dataset(toys, train=2, val=1, size=(192, 256), instances_per_photo=2)
    save_changed(toys / "train/shapes_001.png", toys / "val/shapes_002.png", change)
    Photo(toys, "val", "shapes_002.png").regions = {"0": polygon((5, 5), (30, 5), (30, 30))}
    (error,) = errors(toys)
    how = " mirrored" * (change == "mirrored")
    assert error.startswith(
        f"val/shapes_002.png: is a copy of train/shapes_001.png{how}, saved anew: a leak"
    )


def test_copy_in_the_same_split_is_doubtful(toys: Path) -> None:
    save_changed(toys / "train/shapes_001.png", toys / "train/shapes_000.png", "saved anew")
    Photo(toys, "train", "shapes_000.png").regions = {"0": polygon((5, 5), (30, 5), (30, 30))}
    (warning,) = warnings(toys)
    assert warning == "train/shapes_001.png: is a copy of train/shapes_000.png, saved anew"


def test_split_without_any_annotation_is_an_error(toys: Path) -> None:
    Photo(toys, "val", "shapes_002.png").regions = {}
    assert errors(toys) == ["val: has no sound annotation"]


def test_broken_annotation_file_is_an_error(toys: Path) -> None:
    (toys / "train/via_region_data.json").write_text("{")
    assert "train/via_region_data.json is not JSON" in errors(toys, split="train")[0]


def test_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no annotations of a known format"):
        check_dataset(tmp_path)


@pytest.mark.parametrize(("name", "doubtful"), [("balloon", 0), ("coco-mini", 3)])
def test_real_data_sets_are_sound(shared_data: Path, name: str, doubtful: int) -> None:
    report = check_dataset(shared_data / name)
    assert report.errors == ()
    assert len(report.warnings) == doubtful
