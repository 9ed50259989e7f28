from __future__ import annotations

from dataclasses import replace

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
    draw_window,
    paste_instances,
    place_scene,
    random_window,
    tile_scenes,
    turn_hue,
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
    white: np.ndarray = scene.image.min(axis=2) > 127  # the middle of an edge
    return white


@pytest.mark.parametrize(
    "window",
    [
        Window((80, 100), 0, 0, 96, flipped=False),
        Window((80, 100), -10, -7, 160, flipped=True),
        Window((80, 100), 15, 5, 64, flipped=True),
        Window((160, 200), 30, 10, 128, flipped=False),
        Window((160, 200), 10, -20, 160, flipped=True, turn_deg=25),
    ],
    ids=["plain", "smaller than the view", "cut", "enlarged", "turned"],
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
    assert (scene.masks[0] & _white(scene)).sum() / union > 0.96


def test_around_a_small_photo_there_is_the_fill() -> None:
    scene = place_scene(_photo(), (), Window((80, 100), -10, -10, 128, flipped=False), fill=GREY)
    assert (scene.image[:10] == GREY).all()
    assert (scene.image[90:] == GREY).all()
    assert scene.masks.shape == (0, 128, 128)


def test_instances_almost_out_of_view_are_dropped() -> None:
    nearly_out = Window((80, 100), 56, 0, 64, flipped=False)
    assert len(place_scene(_photo(), (_annotation(),), nearly_out, fill=GREY).masks) == 0


def test_crowds_are_painted_over_but_for_the_instances_in_them() -> None:
    whole = Window((80, 100), 0, 0, 100, flipped=False)
    crowd = Annotation(0, rle=encode_rle(np.ones((80, 100), dtype=np.bool_)), is_crowd=True)
    scene = place_scene(_photo(), (crowd, _annotation()), whole, fill=GREY)
    plain = place_scene(_photo(), (_annotation(),), whole, fill=GREY)
    (mask,) = scene.masks
    assert np.array_equal(mask, plain.masks[0])
    assert np.array_equal(scene.image[mask], plain.image[mask])
    assert np.all(scene.image[~mask] == GREY)


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


def test_zoomed_out_windows_show_as_much_on_half_the_side() -> None:
    chosen = AugmentSettings(crop_px=320, flip=0.0)
    whole, half = (
        random_window((500, 700), chosen, Preprocess(), rng=np.random.default_rng(5), zoom=zoom)
        for zoom in (1.0, 0.5)
    )
    assert half.side == whole.side / 2
    assert half.size == pytest.approx((whole.size[0] / 2, whole.size[1] / 2), abs=1)


def _seen_shares(form: str, least: float) -> list[float]:
    """Shares of the square's pixels that 100 views of 64 pixels show, of those that show it."""
    mask = np.zeros((80, 100), dtype=np.bool_)
    mask[20:60, 10:50] = True
    annotation = (
        _annotation() if form == "polygon" else _annotation(polygons=(), rle=encode_rle(mask))
    )
    chosen = AugmentSettings(crop_px=64, min_scale=0.9, max_scale=2.5, min_shown=least)
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(100):
        window = draw_window(
            (80, 100), (annotation,), chosen, Preprocess(short_side_px=80), rng=rng
        )
        scene = place_scene(_photo(), (annotation,), window, fill=GREY)
        scale = window.size[0] / 80
        shares.append(_white(scene).sum() / (1600 * scale**2))
    return [share for share in shares if share > 0.001]


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_views_show_no_scraps_if_asked_to(form: str) -> None:
    drawn, asked = _seen_shares(form, 0.0), _seen_shares(form, 0.5)
    assert np.mean(np.array(drawn) < 0.45) > 0.2
    assert len(asked) > 50
    assert np.mean(np.array(asked) < 0.45) < 0.02


def test_without_min_shown_the_first_window_is_taken() -> None:
    chosen = AugmentSettings(crop_px=64)
    photo = (80, 100), chosen, Preprocess(short_side_px=80)
    for seed in range(20):
        plain = random_window(*photo, rng=np.random.default_rng(seed))
        drawn = draw_window(photo[0], (_annotation(),), *photo[1:], rng=np.random.default_rng(seed))
        assert drawn == plain


def test_four_scenes_become_the_quarters_of_one() -> None:
    box = (4, 6, 20, 24)
    scenes = [replace(_scene(box, 50 * n), class_indices=np.array([n])) for n in range(4)]
    tiled = tile_scenes(scenes)
    assert tiled.image.shape == (64, 64, 3)
    assert tiled.image[::32, ::32, 0].tolist() == [[0, 50], [100, 150]]
    assert tiled.class_indices.tolist() == [0, 1, 2, 3]
    for n, (top, left) in enumerate([(0, 0), (0, 32), (32, 0), (32, 32)]):
        quarter = tiled.masks[n, top : top + 32, left : left + 32]
        assert (quarter == scenes[n].masks[0]).all()
        assert tiled.masks[n].sum() == quarter.sum()


def test_turning_the_hue_keeps_brightness_and_masks() -> None:
    scene = place_scene(_photo(), (_annotation(),), Window((80, 100), 0, 0, 96, False), fill=GREY)
    turned = turn_hue(scene, 0.5, rng=np.random.default_rng(1))
    red = scene.image[70, 70]
    assert red.argmax() == 0
    assert turned.image[70, 70].max() == red.max()
    assert turned.image[70, 70].tolist() != red.tolist()
    assert (turned.image[30, 30] == 255).all()  # white has no hue
    assert (turned.masks == scene.masks).all()
    assert turn_hue(scene, 0.0, rng=np.random.default_rng(1)) is scene


def test_quarter_turns_take_the_masks_along() -> None:
    scene = place_scene(_photo(), (_annotation(),), Window((80, 100), 0, 0, 96, False), fill=GREY)
    still, turning = (
        AugmentSettings(colour=0.0, quarter_turns=quarter_turns) for quarter_turns in (False, True)
    )
    seen = set()
    for seed in range(20):
        turned = augment_scene(scene, turning, rng=np.random.default_rng(seed))
        assert (_white(turned) & turned.masks[0]).sum() == (_white(scene) & scene.masks[0]).sum()
        seen.add(tuple(np.argwhere(turned.masks[0]).mean(axis=0).round().astype(int).tolist()))
    assert len(seen) == 4
    assert augment_scene(scene, still, rng=np.random.default_rng(0)) is scene


def test_colours_change_the_same_way_for_the_same_seed() -> None:
    scene = place_scene(_photo(), (_annotation(),), Window((80, 100), 0, 0, 96, False), fill=GREY)
    first, second, other = (
        augment_scene(scene, AugmentSettings(), rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert (first.image == second.image).all()
    assert (first.image != other.image).any()
    assert (first.masks == scene.masks).all()
