from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maskserve.core.masks import Mask
from maskserve.datasets.crossings import find_crossing
from maskserve.datasets.polygons import join_polygons, trace_mask

Point = tuple[int, int]

coordinate = st.integers(-500, 500)
points = st.lists(st.tuples(coordinate, coordinate), min_size=4, max_size=9, unique=True)


def crosses(*outline: tuple[float, float]) -> bool:
    return find_crossing(np.array(outline, dtype=np.float64)) is not None


def side(start: Point, end: Point, point: Point) -> int:
    """Twice the signed area of a triangle: exact, for these are whole numbers."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def cross(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    return (side(*one, other[0]) > 0) != (side(*one, other[1]) > 0) and (
        (side(*other, one[0]) > 0) != (side(*other, one[1]) > 0)
    )


@given(points)
def test_every_pair_of_edges_says_the_same(outline: list[Point]) -> None:
    assume(all(side(*three) for three in combinations(outline, 3)))  # no three on one line
    edges = list(zip(outline, outline[1:] + outline[:1], strict=True))
    apart = [
        (one, other) for one, other in combinations(edges, 2) if not {*one} & {*other}
    ]  # edges that share a vertex cannot cross
    assert crosses(*outline) == any(cross(one, other) for one, other in apart)


@given(st.lists(st.floats(1, 100), min_size=3, max_size=60), st.integers(0, 59), st.booleans())
def test_star_does_not_cross_itself(reach: list[float], first: int, is_reversed: bool) -> None:
    angle = np.linspace(0, 2 * np.pi, len(reach), endpoint=False)
    star = np.column_stack((np.cos(angle), np.sin(angle))) * np.array(reach)[:, None]
    star = np.roll(star, first, axis=0)[:: -1 if is_reversed else 1]
    assert find_crossing(star) is None
    assert find_crossing(np.concatenate((star, star[:1]))) is None  # closed twice


def masks() -> st.SearchStrategy[Mask]:
    return st.lists(st.booleans(), min_size=36, max_size=36).map(
        lambda flags: np.array(flags, dtype=np.bool_).reshape(6, 6)
    )


@given(masks())
def test_border_of_a_mask_may_touch_itself(mask: Mask) -> None:
    for outline in trace_mask(mask):
        # Where pixels touch by their corners the outline goes through one place twice.
        places = {tuple(vertex) for vertex in outline.tolist()}
        if len(places) == len(outline):
            assert find_crossing(outline) is None


def test_place_of_the_crossing() -> None:
    assert find_crossing(np.array([[0, 0], [10, 10], [10, 0], [0, 10.0]])) == (5, 5)


@pytest.mark.parametrize(
    "outline",
    [
        [(0, 0), (9, 9), (9, 0), (0, 9)],  # a figure of eight
        [(0, 0), (5, 5), (10, 10), (10, 0), (5, 5), (0, 10)],  # through a vertex of its own
        [(0, 0), (5, 5), (10, 10), (10, 0), (0, 10)],  # an edge through a vertex
    ],
)
def test_outlines_that_cross_themselves(outline: list[tuple[float, float]]) -> None:
    assert crosses(*outline)
    assert crosses(*outline[::-1])


@pytest.mark.parametrize(
    "outline",
    [
        [(0, 0), (10, 0), (0, 10)],
        [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)],  # closed twice
        [(0, 0), (10, 0), (5, 5), (10, 10), (0, 10), (5, 5)],  # two triangles touch
        [(0, 0), (10, 0), (10, 10), (5, 0), (0, 10)],  # a vertex touches an edge
        [(0, 0), (10, 0), (10, 10), (10, 0), (0, 10)],  # there and back again
        [(0, 0), (5, 0), (5, 0), (10, 0), (10, 10)],  # a vertex twice, and three on a line
    ],
)
def test_outlines_that_only_touch_themselves(outline: list[tuple[float, float]]) -> None:
    assert not crosses(*outline)
    assert not crosses(*outline[::-1])


def test_ring_that_is_joined_with_its_hole_does_not_cross_itself() -> None:
    outer = np.array([[0, 0], [20, 0], [20, 20], [0, 20.0]])
    hole = np.array([[5, 5], [15, 5], [15, 15], [5, 15.0]])
    assert find_crossing(join_polygons([outer, hole])) is None


def test_long_outline_is_searched_to_its_end() -> None:
    angle = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    circle = 1000 * np.column_stack((np.cos(angle), np.sin(angle)))
    assert find_crossing(circle) is None
    circle[[2900, 2901]] = circle[[2901, 2900]]
    assert find_crossing(circle) is not None
