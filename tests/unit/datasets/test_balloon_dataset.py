from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskserve.core.errors import OutputError, ParameterError
from maskserve.datasets import check_dataset, load_dataset, write_balloon_dataset
from maskserve.datasets.balloon_photo import render_balloon_photo

SIZE = (96, 128)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_masks_are_disjoint_and_follow_from_the_seed(seed: int, count: int) -> None:
    image, masks = render_balloon_photo(size=SIZE, count=count, seed=seed)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    assert len(masks) <= count
    assert all(mask.shape == SIZE and mask.sum() >= 20 for mask in masks)
    assert np.sum(masks, axis=0).max(initial=0) <= 1  # no pixel is seen of two balloons
    again, masks_again = render_balloon_photo(size=SIZE, count=count, seed=seed)
    assert np.array_equal(image, again)
    assert np.array_equal(masks, masks_again)


def test_same_files_from_one_process_and_from_two(tmp_path: Path) -> None:
    alone = write_balloon_dataset(tmp_path / "alone", photos=4, seed=7, size=SIZE)
    shared = write_balloon_dataset(tmp_path / "shared", photos=4, seed=7, size=SIZE, processes=2)
    assert alone == shared
    assert content_of(tmp_path / "alone") == content_of(tmp_path / "shared")


def test_smaller_data_set_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    for photos in (2, 3):
        write_balloon_dataset(tmp_path / str(photos), photos=photos, seed=1, size=SIZE)
    small, large = content_of(tmp_path / "2"), content_of(tmp_path / "3")
    for name in ("balloons_00000.jpg", "balloons_00001.jpg"):
        assert small[name] == large[name]


def test_seed_decides(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_balloon_dataset(tmp_path / str(seed), photos=1, seed=seed, size=SIZE)
    one, other = content_of(tmp_path / "0"), content_of(tmp_path / "1")
    assert one["balloons_00000.jpg"] != other["balloons_00000.jpg"]


@pytest.mark.parametrize("form", ["coco", "via"])
def test_data_set_is_read_back(tmp_path: Path, form: str) -> None:
    root = tmp_path / "balloon"
    steps: list[tuple[int, int]] = []
    summary = write_balloon_dataset(
        root,
        photos=8,
        seed=0,
        size=SIZE,
        format=form,
        on_progress=lambda *step: steps.append(step),
    )
    dataset = load_dataset(root)
    assert check_dataset(root).errors == ()
    assert steps == [(done, 8) for done in range(1, 9)]
    assert (len(dataset), dataset.categories.names) == (8, ("balloon",))
    assert sum(len(sample.annotations) for sample in dataset.samples) == summary.instances > 0
    assert {sample.image_size for sample in dataset.samples} == {SIZE, SIZE[::-1]}
    for sample in dataset.samples:
        with Image.open(sample.image_path) as photo:
            assert photo.format == "JPEG"
            assert photo.size == sample.image_size[::-1]


@pytest.mark.parametrize(
    "options",
    [{"photos": 0}, {"instances": 0}, {"seed": -1}, {"size": (20, 600)}, {"format": "tar"}],
)
def test_numbers_out_of_range(tmp_path: Path, options: dict[str, object]) -> None:
    arguments: dict[str, object] = {"photos": 1, "seed": 0, **options}
    with pytest.raises(ParameterError):
        write_balloon_dataset(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_folder_with_content_is_refused_before_rendering(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("!")
    with pytest.raises(OutputError, match="not empty"):
        write_balloon_dataset(tmp_path, photos=10**9, seed=0)
