from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskserve.datasets.flaws import FlawError
from maskserve.datasets.photos import read_upright_size, require_decodable
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
    require_decodable(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert read_upright_size(path) == (80, 80)
    with pytest.raises(FlawError, match="cannot be read"):
        require_decodable(path)


@pytest.mark.parametrize("read", [read_upright_size, require_decodable])
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
