from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskserve.core import Preprocess
from maskserve.core.masks import encode_rle
from maskserve.datasets import Annotation
from maskserve.training.augment import (
    Scene,
    Window,
    augment_scene,
    paste_instances,
    place_scene,
    random_window,
)
from maskserve.training.config import AugmentSettings

GREY = (1, 2, 3)
SQUARE = np.array([[10.0, 20], [50, 20], [50, 60], [10, 60]])


def _photo() -> np.ndarray:
    """80 x 100, red, with a white square where SQUARE is."""
    image = np.zeros((80, 100, 3), dtype=np.uint8)
    image[..., 0] = 200
    image[20:60, 10:50] = 255
    return image


def _annotation(**changes: object) -> Annotation:
    return Annotation(**{"class_index": 2, "polygons": (SQUARE,)} | changes)  # type: ignore[arg-type]


def _white(scene: Scene) -> np.ndarray:
    white: np.ndarray = scene.image.min(axis=2) > 250
    return white


@pytest.mark.parametrize(
    "window",
    [
        Window((80, 100), 0, 0, 96, flipped=False),
        Window((80, 100), -10, -7, 160, flipped=True),
        Window((80, 100), 15, 5, 64, flipped=True),
        Window((160, 200), 30, 10, 128, flipped=False),
    ],
    ids=["plain", "smaller than the view", "cut", "enlarged"],
)
@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_masks_stay_on_what_they_mask(window: Window, form: str) -> None:
    mask = np.zeros((80, 100), dtype=np.bool_)
    mask[20:60, 10:50] = True
    annotation = (
        _annotation() if form == "polygon" else _annotation(polygons=(), rle=encode_rle(mask))
    )

    scene = place_scene(_photo(), (annotation,), window, fill=GREY)

    assert scene.image.shape == (window.side, window.side, 3)
    assert scene.class_indices.tolist() == [2]
    union = (scene.masks[0] | _white(scene)).sum()
    assert (scene.masks[0] & _white(scene)).sum() / union > 0.94


def test_around_a_small_photo_there_is_the_fill() -> None:
    scene = place_scene(_photo(), (), Window((80, 100), -10, -10, 128, flipped=False), fill=GREY)
    assert (scene.image[:10] == GREY).all()
    assert (scene.image[90:] == GREY).all()
    assert scene.masks.shape == (0, 128, 128)


def test_instances_almost_out_of_view_and_crowds_are_dropped() -> None:
    nearly_out = Window((80, 100), 56, 0, 64, flipped=False)
    assert len(place_scene(_photo(), (_annotation(),), nearly_out, fill=GREY).masks) == 0
    whole = Window((80, 100), 0, 0, 96, flipped=False)
    crowd = _annotation(is_crowd=True)
    assert len(place_scene(_photo(), (crowd, _annotation()), whole, fill=GREY).masks) == 1


def _scene(box: tuple[int, int, int, int], value: int) -> Scene:
    top, left, bottom, right = box
    masks = np.zeros((1, 32, 32), dtype=np.bool_)
    masks[0, top:bottom, left:right] = True
    return Scene(np.full((32, 32, 3), value, np.uint8), masks, np.array([0]))


class _Always:
    """A generator that chooses every instance and softens as little as it may."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def uniform(self, low: float, high: float) -> float:  # noqa: ARG002
        return low


def test_pasted_instances_hide_what_lies_below() -> None:
    below, above = _scene((4, 4, 20, 20), 50), _scene((10, 10, 26, 26), 200)
    result = paste_instances(below, above, rng=_Always())  # type: ignore[arg-type]
    assert len(result.masks) == 2
    assert not (result.masks[0] & result.masks[1]).any()
    assert result.masks[0].sum() == 16 * 16 - 10 * 10
    assert (result.image[14:22, 14:22] == 200).all()
    assert (result.image[5:8, 5:8] == 50).all()


def test_instances_that_are_covered_are_dropped() -> None:
    below, above = _scene((12, 12, 20, 20), 50), _scene((8, 8, 26, 26), 200)
    result = paste_instances(below, above, rng=_Always())  # type: ignore[arg-type]
    assert result.masks.sum() == 18 * 18


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_windows_never_miss_the_photo(height: int, width: int, seed: int) -> None:
    chosen = AugmentSettings(crop_px=320)
    rng = np.random.default_rng(seed)
    window = random_window((height, width), chosen, Preprocess(), rng=rng)
    for start, length in zip((window.top, window.left), window.size, strict=True):
        shown = min(start + window.side, length) - max(start, 0)
        assert shown == min(length, window.side)


def test_colours_change_the_same_way_for_the_same_seed() -> None:
    scene = place_scene(_photo(), (_annotation(),), Window((80, 100), 0, 0, 96, False), fill=GREY)
    first, second, other = (
        augment_scene(scene, AugmentSettings(), rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert (first.image == second.image).all()
    assert (first.image != other.image).any()
    assert (first.masks == scene.masks).all()
