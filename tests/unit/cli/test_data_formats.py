from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskserve.datasets import load_dataset, load_splits
from maskserve.datasets.synthetic import write_via_dataset

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    root = tmp_path / "toys"
    write_via_dataset(root, train=2, val=1, size=(48, 64), instances_per_photo=2)
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A COCO data set: a photo with a person, a dog and a crowd of dogs; one with a person."""

    def square(number: int, image_id: int, category_id: int, **changes: Any) -> dict[str, Any]:
        outline = [[5, 5, 15, 5, 15, 15, 5, 15]]
        entry = {"id": number, "image_id": image_id, "category_id": category_id}
        return {**entry, "segmentation": outline, **changes}

    root = tmp_path / "pets"
    (root / "images").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png"):
        PillowImage.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "images" / name)
    document = {
        "images": [{"id": n, "file_name": f"{name}.png"} for n, name in enumerate("abc", 1)],
        "annotations": [
            square(1, 1, 1),
            square(2, 1, 18),
            square(3, 1, 18, iscrowd=1, segmentation={"size": [40, 60], "counts": [0, 2400]}),
            square(4, 2, 1),
        ],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 18, "name": "dog"},
            {"id": 44, "name": "bowl, cup"},
        ],
    }
    (root / "instances.json").write_text(json.dumps(document))
    return root


def row(result: CompletedProcess[str], split: str) -> list[str]:
    """The cells of a split's row in the table that was printed."""
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"│ {split} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


class TestConvert:
    def test_it_says_what_there_is(self, run: Run, toys: Path, tmp_path: Path) -> None:
        result = run("data", "convert", toys, "--to", "coco", "--out", tmp_path / "out")
        assert (result.returncode, result.stderr) == (0, "")
        assert row(result, "train") == ["train", "2", "4", "0", "0"]
        assert row(result, "val") == ["val", "1", "2", "0", "0"]
        assert f"Written to {tmp_path / 'out'}" in result.stdout
        assert "Changed" not in result.stdout
        assert set(load_splits(tmp_path / "out")) == {"train", "val"}

    def test_it_says_what_had_to_change(self, run: Run, pets: Path, tmp_path: Path) -> None:
        result = run("data", "convert", pets, "--to", "via", "--out", tmp_path / "out")
        assert "Changed for “via”:\n" in result.stdout
        assert "  1 × class without any instance left out\n" in result.stdout
        assert "  1 × crowd region left out\n" in result.stdout

    def test_one_split_alone(self, run: Run, toys: Path, tmp_path: Path) -> None:
        run("data", "convert", toys, "--to", "yolo", "--split", "val", "--out", tmp_path / "out")
        assert set(load_splits(tmp_path / "out")) == {"val"}

    def test_class_name_is_that_of_the_only_class(
        self, run: Run, toys: Path, tmp_path: Path
    ) -> None:
        arguments = ("--to", "coco", "--class-name", "toy", "--out", tmp_path / "out")
        run("data", "convert", toys, *arguments)
        assert load_dataset(tmp_path / "out", split="val").categories.names == ("toy",)

    def test_a_data_set_with_problems_is_refused(
        self, run: Run, toys: Path, tmp_path: Path
    ) -> None:
        (toys / "val" / "shapes_002.png").unlink()
        result = run("data", "convert", toys, "--to", "coco", "--out", tmp_path / "out")
        assert result.returncode == 3
        assert "val/shapes_002.png: is missing" in result.stderr
        assert not (tmp_path / "out").exists()

    def test_several_classes_do_not_fit_into_mask_folders(
        self, run: Run, pets: Path, tmp_path: Path
    ) -> None:
        result = run("data", "convert", pets, "--to", "masks", "--out", tmp_path / "out")
        assert result.returncode == 2
        assert "instances of 2: dog, person" in result.stderr
        assert "maskserve data subset" in result.stderr

    @pytest.mark.parametrize(
        ("out", "code", "what"),
        [
            ("toys/coco", 2, "lies in the data set's own folder"),
            ("toys", 2, "lies in the data set's own folder"),
            (".", 7, "is there already, and not empty"),
        ],
    )
    def test_a_place_that_is_taken_is_refused(
        self, run: Run, toys: Path, tmp_path: Path, out: str, code: int, what: str
    ) -> None:
        result = run("data", "convert", toys, "--to", "coco", "--out", tmp_path / out)
        assert result.returncode == code
        assert what in result.stderr

    def test_a_file_is_no_data_set(self, run: Run, pets: Path, tmp_path: Path) -> None:
        file = pets / "instances.json"
        result = run("data", "convert", file, "--to", "via", "--out", tmp_path / "out")
        assert result.returncode == 3
        assert "instances.json is a file.\nName the folder" in result.stderr


class TestSubset:
    def test_crowds_stay_and_photos_without_the_class_go(
        self, run: Run, pets: Path, tmp_path: Path
    ) -> None:
        result = run("data", "subset", pets, "--classes", "dog", "--out", tmp_path / "out")
        assert (result.returncode, result.stderr) == (0, "")
        assert row(result, "all") == ["all", "1", "1", "1", "0"]
        dataset = load_dataset(tmp_path / "out")
        assert dataset.categories.category_ids == (18,)
        assert [sample.image_path.name for sample in dataset.samples] == ["a.png"]

    @pytest.mark.parametrize(("keep", "photos"), [("all", "3"), ("1", "2"), ("none", "1")])
    def test_photos_without_the_class_can_stay(
        self, run: Run, pets: Path, tmp_path: Path, keep: str, photos: str
    ) -> None:
        arguments = ("--classes", "dog", "--keep-empty", keep, "--out", tmp_path / "out")
        assert row(run("data", "subset", pets, *arguments), "all")[1] == photos

    @pytest.mark.parametrize(
        "classes",
        [
            ["--classes", "dog, person"],
            ["--classes", "person", "--classes", "dog"],
            ["--classes", "person,dog", "--classes", "dog"],
        ],
    )
    def test_classes_are_named_in_several_ways(
        self, run: Run, pets: Path, tmp_path: Path, classes: list[str]
    ) -> None:
        run("data", "subset", pets, *classes, "--out", tmp_path / "out")
        assert load_dataset(tmp_path / "out").categories.names == ("person", "dog")

    def test_a_class_may_have_a_comma_in_its_name(
        self, run: Run, pets: Path, tmp_path: Path
    ) -> None:
        arguments = ("--classes", "bowl, cup", "--keep-empty", "all", "--out", tmp_path / "out")
        run("data", "subset", pets, *arguments)
        assert load_dataset(tmp_path / "out").categories.names == ("bowl, cup",)

    @pytest.mark.parametrize(
        ("arguments", "code", "what"),
        [
            (["--classes", "dogs"], 2, "There is no class “dogs”.\nDid you mean “dog”?"),
            (["--classes", "dog", "--keep-empty", "some"], 2, "a number, all or none, not “some”"),
            (["--classes", "bowl, cup"], 3, "has no photo with bowl, cup"),
            (["--classes", "dog", "--split", "val"], 3, "is not divided"),
        ],
    )
    def test_a_mistake_is_explained(
        self, run: Run, pets: Path, tmp_path: Path, arguments: list[str], code: int, what: str
    ) -> None:
        result = run("data", "subset", pets, *arguments, "--out", tmp_path / "out")
        assert result.returncode == code
        assert what in result.stderr
        assert not (tmp_path / "out").exists()
