from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from maskserve.core.errors import DatasetError
from maskserve.datasets import check_dataset
from maskserve.datasets.synthetic import write_via_dataset


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    root = tmp_path / "toys"
    write_via_dataset(root, train=2, val=1, size=(48, 64), instances_per_photo=2)
    return root


def found(root: Path, **options: str) -> list[str]:
    return [str(problem) for problem in check_dataset(root, **options)]


def test_sound_data_set_has_no_problem(toys: Path) -> None:
    assert found(toys) == []


def test_problems_of_all_splits_and_kinds_are_collected(toys: Path) -> None:
    shutil.copy(toys / "train/shapes_000.png", toys / "val/shapes_002.png")
    damaged = toys / "train/shapes_001.png"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    file = toys / "train/via_region_data.json"
    document = json.loads(file.read_text())
    regions = document["shapes_000.png"]["regions"]
    regions["2"] = regions["0"]
    regions["3"] = {"shape_attributes": {"name": "point"}, "region_attributes": {}}
    file.write_text(json.dumps(document))
    first, second, third, fourth = found(toys)
    assert first.startswith("train/shapes_000.png, region 3: has the shape “point”")
    assert second == "train/shapes_000.png: has an instance that is annotated 2 times"
    assert third.startswith("train/shapes_001.png: cannot be read")
    assert fourth == "val/shapes_002.png: is the same photo as train/shapes_000.png"
    assert found(toys, split="val") == []


def test_split_without_any_annotation_is_a_problem(toys: Path) -> None:
    file = toys / "val/via_region_data.json"
    document = json.loads(file.read_text())
    document["shapes_002.png"]["regions"] = {}
    file.write_text(json.dumps(document))
    assert found(toys) == ["val: has no sound annotation"]


def test_broken_annotation_file_is_a_problem(toys: Path) -> None:
    (toys / "train/via_region_data.json").write_text("{")
    assert "train/via_region_data.json is not JSON" in found(toys, split="train")[0]


def test_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no annotations of a known format"):
        check_dataset(tmp_path)


@pytest.mark.parametrize("name", ["balloon", "coco-mini"])
def test_real_data_sets_are_sound(shared_data: Path, name: str) -> None:
    assert check_dataset(shared_data / name) == []
