from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskserve.core import MaskCrop
from maskserve.core.masks import decode_rle, polygons_to_rle
from maskserve.runtime.contours import crop_to_outlines, crop_to_polygons

Mask = npt.NDArray[np.bool_]

HOLE = np.array(
    [
        [1, 1, 1, 1],
        [1, 0, 0, 1],
        [1, 0, 0, 1],
        [1, 1, 1, 1],
    ],
    np.bool_,
)


def area_of(ring: npt.NDArray[np.float64]) -> float:
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def test_a_rectangle_is_traced_along_its_border_with_corners_cut() -> None:
    (ring,) = crop_to_polygons(MaskCrop(5, 6, np.ones((2, 3), np.bool_)))
    assert ring[:, 0].min() == 6
    assert ring[:, 0].max() == 9
    assert ring[:, 1].min() == 5
    assert ring[:, 1].max() == 7
    assert area_of(ring) == 6 - 4 * 0.125


def test_a_slanted_border_needs_few_vertices() -> None:
    (ring,) = crop_to_polygons(MaskCrop(0, 0, np.tri(50, dtype=np.bool_)))
    assert len(ring) <= 8


def test_parts_get_a_ring_each() -> None:
    pixels = np.array([[1, 0, 1]], np.bool_)
    assert len(crop_to_polygons(MaskCrop(0, 0, pixels))) == 2


def test_a_single_pixel_survives() -> None:
    rings = crop_to_polygons(MaskCrop(2, 3, np.ones((1, 1), np.bool_)))
    expected = np.zeros((5, 5), np.bool_)
    expected[2, 3] = True
    np.testing.assert_array_equal(decode_rle(polygons_to_rle(rings, (5, 5))), expected)


def test_holes_are_filled_in_polygons_and_drawn_in_outlines() -> None:
    crop = MaskCrop(0, 0, HOLE)
    assert len(crop_to_polygons(crop)) == 1
    assert len(crop_to_outlines(crop)) == 2
    assert decode_rle(polygons_to_rle(crop_to_polygons(crop), (4, 4))).all()


def test_no_pixel_no_ring() -> None:
    assert crop_to_polygons(MaskCrop(0, 0, np.zeros((0, 0), np.bool_))) == []
    assert crop_to_polygons(MaskCrop(0, 0, np.zeros((3, 3), np.bool_))) == []


@given(
    st.tuples(*[st.floats(2, 25)] * 2),
    st.tuples(*[st.floats(15, 30)] * 2),
)
def test_rasterising_the_outline_of_an_ellipse_gives_it_back(
    radii: tuple[float, float], centre: tuple[float, float]
) -> None:
    y, x = np.mgrid[0:45, 0:45]
    mask = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    back = decode_rle(polygons_to_rle(crop_to_polygons(MaskCrop(0, 0, mask)), (45, 45)))
    assert np.count_nonzero(mask & back) >= 0.99 * np.count_nonzero(mask | back)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)))
def test_no_pixel_is_lost_on_the_way_through_polygons(mask: Mask) -> None:
    rings = crop_to_polygons(MaskCrop(0, 0, mask))
    assert all(len(ring) >= 4 for ring in rings)
    if rings:
        assert not (
            mask & ~decode_rle(polygons_to_rle(rings, (mask.shape[0], mask.shape[1])))
        ).any()
