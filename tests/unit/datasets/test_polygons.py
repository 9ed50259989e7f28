from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskserve.core.masks import decode_rle, polygons_to_rle
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.polygons import (
    clip_polygon,
    ellipse_polygon,
    fit_polygons,
    join_polygons,
    rectangle_polygon,
    trace_mask,
)
from maskserve.datasets.types import Polygon

SIZE = (40, 60)


def area(polygon: Polygon) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def test_polygon_that_reaches_the_border_is_left_alone() -> None:
    whole_photo = rectangle_polygon(0, 0, 60, 40)
    assert clip_polygon(whole_photo, SIZE) is whole_photo


@pytest.mark.parametrize(
    ("rectangle", "expected_area"),
    [
        ((-10, 5, 20, 10), 100),
        ((50, 5, 20, 10), 100),
        ((5, -5, 10, 10), 50),
        ((5, 35, 10, 10), 50),
        ((-5, -5, 10, 10), 25),
        ((-5, -5, 100, 100), 60 * 40),
        ((70, 5, 10, 10), 0),
    ],
)
def test_clipping_keeps_what_lies_inside(
    rectangle: tuple[float, float, float, float], expected_area: float
) -> None:
    clipped = clip_polygon(rectangle_polygon(*rectangle), SIZE)
    assert (area(clipped) if len(clipped) else 0) == pytest.approx(expected_area)


def test_concave_polygon_may_fall_into_two_pieces() -> None:
    fork = np.array([[10, 10], [70, 10], [70, 14], [50, 20], [70, 26], [70, 30], [10, 30]], float)
    mask = decode_rle(polygons_to_rle([clip_polygon(fork, SIZE)], SIZE))
    assert mask[12, 58]
    assert mask[28, 58]
    assert not mask[20, 58]


def contains(polygon: Polygon, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether each of the points, (N, 2), lies inside, by the even-odd rule."""
    inside = np.zeros(len(points), dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        spans = (points[:, 1] < y0) != (points[:, 1] < y1)
        if spans.any():
            crossing = x0 + (points[:, 1] - y0) / (y1 - y0) * (x1 - x0)
            inside ^= spans & (points[:, 0] < crossing)
    return inside


# Vertices on whole and half numbers, so that no edge comes very near to one of the points.
coordinate = st.integers(-60, 180).map(lambda twice: twice / 2)


@settings(deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8))
def test_clipping_changes_nothing_inside_the_photo(vertices: list[tuple[float, float]]) -> None:
    polygon = np.array(vertices)
    clipped = clip_polygon(polygon, SIZE)
    assert np.all(clipped >= 0)
    assert np.all(clipped <= (60, 40))
    x, y = np.meshgrid(np.arange(60) + 0.3137, np.arange(40) + 0.2719)
    points = np.column_stack((x.ravel(), y.ravel()))
    expected = contains(polygon, points)
    actual = contains(clipped, points) if len(clipped) else np.zeros_like(expected)
    assert np.array_equal(actual, expected)


@pytest.mark.parametrize("theta", [0.0, 0.5, np.pi / 2])
def test_ellipse_covers_the_pixels_whose_centres_it_holds(theta: float) -> None:
    cx, cy, rx, ry = 31.3, 20.2, 17.0, 8.0
    y, x = np.mgrid[:40, :60] + 0.5
    along = (x - cx) * np.cos(theta) + (y - cy) * np.sin(theta)
    across = -(x - cx) * np.sin(theta) + (y - cy) * np.cos(theta)
    distance = np.hypot(along / rx, across / ry)
    mask = ellipse_polygon(cx, cy, rx=rx, ry=ry, theta=theta)
    actual = decode_rle(polygons_to_rle([mask], SIZE))
    certain = np.abs(distance - 1) > 0.1
    assert np.array_equal(actual[certain], (distance < 1)[certain])
    assert np.count_nonzero(actual) == pytest.approx(np.pi * rx * ry, rel=0.02)


@pytest.mark.parametrize(
    ("vertices", "message"),
    [
        ([[1, 1], [5, 1]], "has 2 distinct vertices"),
        ([[1, 1], [5, 1], [1, 1]], "has 2 distinct vertices"),
        ([[1, 1], [5, 1], [9, 1]], "has no area"),
        ([[1, 1], [5, np.nan], [9, 4]], "not a number"),
        ([[70, 1], [80, 1], [80, 9]], "lies outside the photo of 60x40 pixels"),
        ([[60, 1], [80, 1], [80, 9]], "lies outside"),
        ([[1.1, 1.1], [1.2, 1.1], [1.2, 1.2]], "too small to cover a pixel"),
    ],
)
def test_outline_without_anything_inside_is_refused(
    vertices: list[list[float]], message: str
) -> None:
    with pytest.raises(FlawError, match=message):
        fit_polygons([np.array(vertices, dtype=np.float64)], SIZE)


def test_small_part_of_a_larger_outline_is_kept() -> None:
    large, small = rectangle_polygon(5, 5, 10, 10), rectangle_polygon(30.1, 5.1, 0.1, 0.1)
    assert len(fit_polygons([large, small], SIZE)) == 2


def test_figure_of_eight_is_an_outline_although_its_signed_area_is_zero() -> None:
    eight = np.array([[5, 5], [25, 25], [25, 5], [5, 25]], dtype=np.float64)
    assert fit_polygons([eight], SIZE)[0] is eight


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_traced_outlines_enclose_the_mask_and_nothing_else(mask: npt.NDArray[np.bool_]) -> None:
    outlines = trace_mask(mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    centres = np.column_stack((x.ravel(), y.ravel()))
    inside = np.zeros(mask.size, dtype=np.bool_)
    for outline in outlines:
        steps = np.roll(outline, -1, axis=0) - outline
        assert np.all((steps == 0).sum(axis=1) == 1), "edges run along rows and columns in turn"
        inside ^= contains(outline, centres)
    assert np.array_equal(inside.reshape(mask.shape), mask)
    if outlines:
        joined = join_polygons(outlines)
        assert np.array_equal(decode_rle(polygons_to_rle([joined], mask.shape)), mask)


def test_trace_has_one_outline_for_each_part_and_each_hole() -> None:
    mask = np.zeros((9, 12), dtype=np.bool_)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False
    mask[2:4, 10:12] = True
    assert sorted(map(area, trace_mask(mask))) == [4, 4, 49]
    assert trace_mask(np.zeros((3, 4), dtype=np.bool_)) == []


def test_joined_outline_covers_parts_that_are_apart() -> None:
    parts = [rectangle_polygon(5, 5, 10, 10), rectangle_polygon(30.5, 20.2, 11, 9)]
    joined = decode_rle(polygons_to_rle([join_polygons(parts)], SIZE))
    assert np.array_equal(joined, decode_rle(polygons_to_rle(parts, SIZE)))


@pytest.mark.parametrize(("left", "overshoot_px"), [(0, 0), (5, 0), (-3.5, 3.5), (52, 2), (-9, 9)])
def test_fitted_polygons_know_how_far_they_reached_out(left: float, overshoot_px: float) -> None:
    fitted = fit_polygons([rectangle_polygon(left, 5, 10, 10)], SIZE)
    assert fitted.overshoot_px == overshoot_px
