from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags
from PIL import Image as PillowImage

from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import (
    listed_photos,
    photo_file_name,
    read_mask,
    read_thumbnail,
    read_upright_size,
)
from maskserve.runtime.image_io import read_image


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_photo_that_is_read(
    tmp_path: Path, write_photo: Callable[..., None], suffix: str, orientation: int
) -> None:
    path = tmp_path / f"photo{suffix}"
    write_photo(path, (40, 60), orientation=orientation)
    assert read_upright_size(path) == read_image(path).shape[:2]
    assert read_upright_size(path) == ((60, 40) if orientation >= 5 else (40, 60))


def test_size_of_a_huge_photo_is_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    PillowImage.new("1", (12_000, 10_000)).save(path)
    assert read_upright_size(path) == (10_000, 12_000)


def test_truncated_photo_has_a_size_but_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    PillowImage.fromarray(noise).save(path)
    read_thumbnail(path, side_px=8)
    path.write_bytes(path.read_bytes()[:2000])
    assert read_upright_size(path) == (80, 80)
    with pytest.raises(FlawError, match="cannot be read"):
        read_thumbnail(path, side_px=8)


@pytest.mark.parametrize(
    "read", [read_upright_size, read_mask, lambda path: read_thumbnail(path, side_px=8)]
)
def test_what_is_not_a_photo_is_said_to_be_none(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    PillowImage.new("RGB", (4, 4)).save(tmp_path / "photo.gif")
    with pytest.raises(FlawError, match="is missing"):
        read(tmp_path / "nowhere.jpg")
    with pytest.raises(FlawError, match="is not a JPEG, PNG or WebP photo"):
        read(tmp_path / "text.jpg")
    with pytest.raises(FlawError, match="is not a JPEG, PNG or WebP photo"):
        read(tmp_path / "photo.gif")
    with pytest.raises(FlawError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_thumbnail_is_that_of_the_photo_that_is_read(tmp_path: Path, orientation: int) -> None:
    exif = PillowImage.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    quarters = np.kron([[10, 90], [170, 250]], np.ones((20, 30))).astype(np.uint8)
    PillowImage.fromarray(quarters).save(tmp_path / "photo.png", exif=exif)
    upright = read_image(tmp_path / "photo.png")
    height, width = upright.shape[0] // 2, upright.shape[1] // 2
    expected = upright[height // 2 :: height, width // 2 :: width, 0]
    thumbnail = read_thumbnail(tmp_path / "photo.png", side_px=2)
    assert thumbnail.dtype == np.float32
    assert np.array_equal(thumbnail, expected)


def test_photos_are_listed_with_those_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.webp", "scan.tiff", "notes.txt", "a/labels.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = [path.relative_to(tmp_path).as_posix() for path in listed_photos(tmp_path)]
    assert listed == ["a/c.webp", "b.JPG", "scan.tiff"]


def test_photo_gets_a_suffix_that_tells_its_type(
    tmp_path: Path, write_photo: Callable[..., None]
) -> None:
    write_photo(tmp_path / "photo.JPEG")
    assert photo_file_name(tmp_path / "photo.JPEG") == "photo.JPEG"
    (tmp_path / "photo.JPEG").rename(tmp_path / "photo.v2")
    assert photo_file_name(tmp_path / "photo.v2") == "photo.v2.jpg"


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(1, 255))
def test_mask_is_read_whatever_its_value(mask: npt.NDArray[np.bool_], value: int) -> None:
    file = BytesIO()
    PillowImage.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(file, "PNG")
    assert np.array_equal(read_mask(file), mask)


def test_mask_with_soft_edges_is_refused(tmp_path: Path) -> None:
    PillowImage.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(FlawError, match="has more than two values"):
        read_mask(tmp_path / "mask.png")
