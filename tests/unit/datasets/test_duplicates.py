from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskserve.datasets.duplicates import Likeness, find_alike, fingerprint
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.synthetic import render_balloons

Photo = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def scene() -> Photo:
    return render_balloons(size=(240, 320), count=6, seed=1)[0]


def fingerprint_of(folder: Path, photo: Photo, suffix: str = ".png") -> npt.NDArray[np.float32]:
    path = folder / f"photo{suffix}"
    Image.fromarray(photo).save(path)
    return fingerprint(path)


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        (lambda photo: photo, ".jpg"),
        (lambda photo: cv2.resize(photo, (160, 120), interpolation=cv2.INTER_AREA), ".png"),
        (lambda photo: np.clip(photo * 1.15 + 8, 0, 255).astype(np.uint8), ".png"),
        (lambda photo: cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), ".jpg"),
    ],
    ids=["saved anew", "halved", "brighter", "grey"],
)
def test_copy_is_found(tmp_path: Path, scene: Photo, change: object, suffix: str) -> None:
    copy = fingerprint_of(tmp_path, change(scene), suffix)  # type: ignore[operator]
    found = list(find_alike([fingerprint_of(tmp_path, scene), copy]))
    assert found == [Likeness(0, 1, is_mirrored=False, is_copy=True)]


def test_mirror_image_is_found(tmp_path: Path, scene: Photo) -> None:
    prints = [fingerprint_of(tmp_path, photo) for photo in (scene, scene[:, ::-1])]
    assert list(find_alike(prints)) == [Likeness(0, 1, is_mirrored=True, is_copy=True)]


def test_other_scenes_differ(tmp_path: Path) -> None:
    scenes = [render_balloons(size=(120, 160), count=5, seed=seed)[0] for seed in range(6)]
    assert list(find_alike([fingerprint_of(tmp_path, photo) for photo in scenes])) == []


def test_photo_that_shows_nothing_is_like_no_other(tmp_path: Path) -> None:
    flat = np.full((40, 40, 3), 128, np.uint8)
    slope = np.repeat(np.linspace(60, 200, 90)[:, None, None], 80, axis=1).repeat(3, axis=2)
    prints = [fingerprint_of(tmp_path, photo.astype(np.uint8)) for photo in (flat, flat, slope)]
    assert not np.any(prints[0])
    assert list(find_alike(prints)) == []


def test_each_photo_is_named_once_with_the_earlier_one_most_like_it() -> None:
    rng = np.random.default_rng(0)
    base, other = rng.standard_normal((2, 1024))
    near, nearer = base + 0.4 * other, base + 0.1 * other
    prints = [p / np.linalg.norm(p) for p in (near, other, base, nearer)]
    found = list(find_alike([p.astype(np.float32) for p in prints]))
    assert [(pair.first, pair.second, pair.is_copy) for pair in found] == [
        (0, 2, False),
        (2, 3, True),
    ]


def test_no_photos() -> None:
    assert list(find_alike([])) == []


def test_many_photos_are_compared_across_blocks() -> None:
    prints = np.random.default_rng(0).standard_normal((1500, 1024)).astype(np.float32)
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    prints[1400] = prints[3]
    found = list(find_alike(list(prints)))
    assert [(pair.first, pair.second) for pair in found] == [(3, 1400)]


def test_damaged_photo_is_refused(tmp_path: Path, scene: Photo) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(scene).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FlawError, match="cannot be read"):
        fingerprint(path)
