from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskserve.core import Image, Instances, MaskCrop
from maskserve.core.errors import ParameterError
from maskserve.runtime.render import PALETTE, STYLES, Style, colour_of, draw


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_a_new_picture_of_the_same_size(
    photo: Image, two_squares: Instances, style: Style
) -> None:
    before = photo.copy()
    photo.flags.writeable = False
    drawn = draw(photo, two_squares, style=style)
    assert drawn.dtype == np.uint8
    assert drawn.shape == photo.shape
    assert not np.array_equal(drawn, before)
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("style", ["overlay", "outline"])
def test_nothing_found_leaves_the_photo_as_it_is(photo: Image, style: Style) -> None:
    drawn = draw(photo, Instances.empty((60, 80), ["balloon"]), style=style)
    np.testing.assert_array_equal(drawn, photo)


def test_splash_keeps_the_colour_inside_the_masks_only(
    photo: Image, two_squares: Instances
) -> None:
    drawn = draw(photo, two_squares, style="splash")
    inside = two_squares.masks.any(axis=0)
    np.testing.assert_array_equal(drawn[inside], photo[inside])
    assert (np.ptp(drawn[~inside], axis=1) == 0).all()


def test_mask_is_white_where_coverage_counts(photo: Image, two_squares: Instances) -> None:
    drawn = draw(photo, two_squares, style="mask")
    np.testing.assert_array_equal(np.unique(drawn), [0, 255])
    assert np.count_nonzero(drawn[..., 0]) == two_squares.coverage().masked_px


def test_overlay_tints_the_inside_and_leaves_the_rest(two_squares: Instances) -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    first = two_squares.select(np.array([True, False]))
    drawn = draw(black, first, style="overlay")
    np.testing.assert_allclose(drawn[24, 14], np.array(PALETTE[0]) * 0.45, atol=1)
    assert not drawn[45:].any()


def test_the_best_instance_lies_on_top(two_squares: Instances) -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    outlined = draw(black, two_squares, style="outline")
    # The border of the first square, inside the second one.
    np.testing.assert_array_equal(outlined[25, 29], PALETTE[0])


def test_outlines_run_along_the_border(two_squares: Instances) -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    drawn = draw(black, two_squares.select(np.array([True, False])), style="outline")
    assert drawn[20, 9:12].any()
    assert not drawn[20, 14:26].any()


def test_a_label_names_the_class_where_there_is_room(two_squares: Instances) -> None:
    black = np.zeros((600, 800, 3), np.uint8)
    size = (600, 800)
    instances = replace(two_squares, image_size=size).select(np.array([True, False]))
    low = replace(
        instances,
        boxes_xyxy=instances.boxes_xyxy + np.float32(200),
        crops=(MaskCrop(210, 210, np.ones((20, 20), np.bool_)),),
    )
    above = draw(black, low, style="outline")[180:205, 170:270]
    labelled = (above == PALETTE[0]).all(axis=-1)
    assert np.count_nonzero(labelled) > 500
    assert np.count_nonzero(~labelled & (above.sum(axis=-1) == 0)) > 20  # the letters


@pytest.mark.parametrize("name", ["Löwenzahn", "風船", "", "x" * 200])
def test_any_class_name_can_be_drawn(photo: Image, two_squares: Instances, name: str) -> None:
    drawn = draw(photo, replace(two_squares, class_names=(name, "kite")))
    assert drawn.shape == photo.shape


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_tiny_photos(size: tuple[int, int], style: Style) -> None:
    height, width = size
    everything = Instances(
        size,
        ("balloon",),
        np.array([[0, 0, width, height]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int64),
        (MaskCrop(0, 0, np.ones(size, np.bool_)),),
    )
    assert draw(np.zeros((*size, 3), np.uint8), everything, style=style).shape == (*size, 3)


@pytest.mark.parametrize("style", STYLES)
def test_an_instance_without_any_pixel(photo: Image, style: Style) -> None:
    nothing = Instances(
        (60, 80),
        ("balloon",),
        np.array([[5, 5, 5.2, 5.2]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int64),
        (MaskCrop(0, 0, np.zeros((0, 0), np.bool_)),),
    )
    assert draw(photo, nothing, style=style).shape == photo.shape


def test_an_unknown_style_names_the_nearest(photo: Image, two_squares: Instances) -> None:
    with pytest.raises(ParameterError, match=r"There is no style “overlai”.*“overlay”"):
        draw(photo, two_squares, style="overlai")  # type: ignore[arg-type]


def test_colours_repeat_after_the_end_of_the_palette() -> None:
    assert colour_of(0) == colour_of(len(PALETTE))
    assert len(set(PALETTE)) == len(PALETTE)
