from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskserve.core import Image, Preprocess
from maskserve.runtime.preprocess import resize_image, resized_size, to_graph_input

SETTINGS = Preprocess(short_side_px=64, max_side_px=96)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((60, 80), (64, 85)),  # enlarged until the short side fits
        ((80, 60), (85, 64)),
        ((128, 128), (64, 64)),
        ((100, 400), (24, 96)),  # the long side is the limit
        ((1, 5000), (1, 96)),
    ],
)
def test_the_size_is_detectron2s(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(size, SETTINGS) == expected


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_no_side_leaves_its_bounds(height: int, width: int) -> None:
    resized = resized_size((height, width), SETTINGS)
    assert 1 <= min(resized) <= 64
    assert max(resized) <= 96


def test_a_photo_of_the_right_size_is_left_alone(photo: Image) -> None:
    np.testing.assert_array_equal(resize_image(photo, (60, 80)), photo)


def test_channels_are_turned_round_for_bgr(photo: Image) -> None:
    rgb = to_graph_input(photo, SETTINGS)
    bgr = to_graph_input(photo, SETTINGS.model_copy(update={"channel_order": "bgr"}))
    np.testing.assert_array_equal(rgb[..., ::-1], bgr)
    assert bgr.flags.c_contiguous
    assert bgr.dtype == np.uint8


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    resized = resize_image(stripes, (20, 20))
    assert abs(float(resized.mean()) - 100) < 2
    assert float(resized[5:15, 5:15].std()) < 2
