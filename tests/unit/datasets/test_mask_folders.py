from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskserve.core.errors import DatasetError
from maskserve.datasets import available_splits, load_dataset, read_dataset

SIZE = (40, 60)


def square(top: int, left: int, *, value: int = 255, size: tuple[int, int] = SIZE) -> Any:
    pixels = np.zeros(size, np.uint8)
    pixels[top : top + 10, left : left + 10] = value
    return pixels


@pytest.fixture
def add_photo(write_photo: Callable[..., None]) -> Callable[..., Path]:
    def add(folder: Path, *masks: Any, orientation: int = 1) -> Path:
        """A photo of ``SIZE`` as stored, with its masks."""
        write_photo(folder / "images" / f"{folder.name}.png", SIZE, orientation=orientation)
        (folder / "masks").mkdir()
        for number, mask in enumerate(masks):
            PillowImage.fromarray(mask).save(folder / "masks" / f"{number}.png")
        return folder

    return add


def test_every_mask_is_an_instance_of_one_class(
    tmp_path: Path, add_photo: Callable[..., Path]
) -> None:
    root = tmp_path / "cells"
    add_photo(root / "b", square(0, 0), square(5, 5, value=1))
    add_photo(root / "a")
    dataset = load_dataset(root)
    assert dataset.categories.names == ("cells",)
    empty, full = dataset.samples
    assert (empty.image_path.name, len(empty.annotations)) == ("a.png", 0)
    for annotation, expected in zip(full.annotations, (square(0, 0), square(5, 5)), strict=True):
        assert np.array_equal(annotation.mask(SIZE), expected == 255)
    assert load_dataset(root, class_name="cell").categories.names == ("cell",)


def test_folders_of_mask_folders_are_splits(tmp_path: Path, add_photo: Callable[..., Path]) -> None:
    add_photo(tmp_path / "cells" / "stage1_train" / "a", square(0, 0))
    add_photo(tmp_path / "cells" / "val" / "b", square(0, 0))
    assert available_splits(tmp_path / "cells") == ("stage1_train", "val")
    alone = load_dataset(tmp_path / "cells" / "stage1_train")
    assert alone.categories.names == ("cells",)


def test_masks_are_as_large_as_the_upright_photo(
    tmp_path: Path, add_photo: Callable[..., Path]
) -> None:
    add_photo(tmp_path / "a", square(30, 0, size=SIZE[::-1]), orientation=6)
    (sample,) = load_dataset(tmp_path).samples
    assert sample.image_size == SIZE[::-1]
    assert sample.annotations[0].box_xyxy(sample.image_size).tolist() == [0, 30, 10, 40]


@pytest.mark.parametrize(
    "convert",
    [
        lambda grey: grey.convert("RGBA"),
        lambda grey: grey.convert("P"),
        lambda grey: grey.convert("1"),
        lambda grey: PillowImage.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    ],
)
def test_a_mask_may_be_any_kind_of_png(
    tmp_path: Path,
    add_photo: Callable[..., Path],
    convert: Callable[[PillowImage.Image], PillowImage.Image],
) -> None:
    folder = add_photo(tmp_path / "a")
    convert(PillowImage.fromarray(square(0, 0))).save(folder / "masks" / "0.png")
    (sample,) = load_dataset(tmp_path).samples
    assert sample.annotations[0].area_px(SIZE) == 100


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        (np.zeros(SIZE, np.uint8), "is a mask without any pixel"),
        (square(0, 0, size=(60, 40)), "has 40x60 pixels, but its upright photo 60x40"),
        (square(0, 0) // 255 + square(20, 20, value=2), "has more than two values"),
    ],
)
def test_unsound_mask_is_a_problem_with_its_place(
    tmp_path: Path, add_photo: Callable[..., Path], mask: Any, what: str
) -> None:
    add_photo(tmp_path / "a", square(0, 0), mask)
    dataset, problems = read_dataset(tmp_path)
    (problem,) = problems
    assert problem.where == "a/masks/1.png"
    assert what in problem.what
    assert len(dataset.samples[0].annotations) == 1


def test_file_that_is_no_picture_is_a_problem_and_hidden_ones_are_none(
    tmp_path: Path, add_photo: Callable[..., Path]
) -> None:
    folder = add_photo(tmp_path / "a", square(0, 0))
    (folder / "masks" / ".DS_Store").write_text("")
    (folder / "masks" / "notes.txt").write_text("blurred")
    _, problems = read_dataset(tmp_path)
    assert [p.where for p in problems] == ["a/masks/notes.txt"]


def test_unsound_folder_is_a_problem(tmp_path: Path, add_photo: Callable[..., Path]) -> None:
    add_photo(tmp_path / "good", square(0, 0))
    (add_photo(tmp_path / "no-photo", square(0, 0)) / "images" / "no-photo.png").unlink()
    (add_photo(tmp_path / "no-masks") / "masks").rmdir()
    two = add_photo(tmp_path / "two-photos")
    (two / "images" / "other.png").write_bytes((two / "images" / "two-photos.png").read_bytes())
    (add_photo(tmp_path / "torn") / "images" / "torn.png").write_text("torn")
    (tmp_path / "notes").mkdir()
    dataset, problems = read_dataset(tmp_path)
    assert len(dataset) == 1
    assert {problem.where: problem.what.partition(",")[0] for problem in problems} == {
        "no-photo": "has 0 photos in “images”",
        "no-masks": "has no folder “masks”; make an empty one if the photo has no instance",
        "two-photos": "has 2 photos in “images”",
        "torn/images/torn.png": "is not a JPEG",
    }


def test_folder_without_masks_is_not_of_this_format(
    tmp_path: Path, write_photo: Callable[..., None]
) -> None:
    write_photo(tmp_path / "a" / "images" / "a.png")
    with pytest.raises(DatasetError, match="no annotations of a known format"):
        load_dataset(tmp_path)


def test_nuclei_are_read_whole(shared_data: Path) -> None:
    dataset = load_dataset(shared_data / "nuclei" / "stage1_train")
    assert dataset.categories.names == ("nuclei",)
    assert len(dataset) == 100
    assert sum(len(sample.annotations) for sample in dataset.samples) == 4490
