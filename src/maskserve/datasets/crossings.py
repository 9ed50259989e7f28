"""Outlines that cross themselves, as a figure of eight does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskserve.datasets.types import Polygon

__all__ = ["find_crossing"]

_TOLERANCE_PX = 1e-6
"""What lies so close to a line lies on it."""

_BLOCK = 512
"""Edges that are compared with all others at a time: it bounds the memory."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def find_crossing(polygon: Polygon) -> tuple[float, float] | None:
    """Where a closed outline crosses itself first; None if it does not.

    It crosses itself where two edges cross, and where it passes through a vertex from one side
    of itself to the other. It may touch itself and run along itself, and vertices may be
    repeated: the last may equal the first. An edge that is run along both ways encloses nothing
    and crosses nothing; with such edges formats that know only one outline join the parts of an
    instance.
    """
    points = _without_repeats(polygon)
    if len(points) < 4:
        return None
    ends = np.roll(points, -1, axis=0)
    is_bridge = _run_both_ways(points, ends)
    for first in range(0, len(points), _BLOCK):
        rows = slice(first, first + _BLOCK)
        starts_aside = _distances(points[rows], points, ends)
        ends_aside = _distances(ends[rows], points, ends)
        aside_of_row = _distances(points, points[rows], ends[rows]).T
        opposite = (starts_aside * ends_aside < 0) & (
            aside_of_row * np.roll(aside_of_row, -1, axis=1) < 0
        )
        opposite &= ~is_bridge[rows, None] & ~is_bridge[None]
        if opposite.any():
            row, column = map(int, np.unravel_index(np.argmax(opposite), opposite.shape))
            before, after = starts_aside[row, column], ends_aside[row, column]
            start, end = points[first + row], ends[first + row]
            x, y = start + before / (before - after) * (end - start)
            return float(x), float(y)
        for row, column in _on_edges(points[rows], points, ends, lines=starts_aside == 0):
            if _passes_through(points, first + row, column):
                x, y = points[first + row]
                return float(x), float(y)
    return None


def _without_repeats(polygon: Polygon) -> Floats:
    """The vertices without those that are where the one before is."""
    return polygon[np.any(polygon != np.roll(polygon, 1, axis=0), axis=1)]


def _run_both_ways(starts: Floats, ends: Floats) -> Flags:
    """Which edges have a twin that leads back."""
    forth = np.hstack((starts, ends))
    back = np.hstack((ends, starts))
    known = set(map(tuple, back.tolist()))
    return np.array([tuple(edge) in known for edge in forth.tolist()])


def _distances(points: Floats, starts: Floats, ends: Floats) -> Floats:
    """Signed distance of each point to the line through each edge, shape (points, edges)."""
    along = ends - starts
    length = np.hypot(*along.T)
    offset = points[:, None] - starts
    distance = (along[:, 0] * offset[..., 1] - along[:, 1] * offset[..., 0]) / length
    return np.where(np.abs(distance) <= _TOLERANCE_PX, 0, distance)


def _on_edges(
    points: Floats, starts: Floats, ends: Floats, *, lines: Flags
) -> list[tuple[int, int]]:
    """Which points lie on which edges, of those that lie on the edges' ``lines``."""
    row, column = np.nonzero(lines)
    to_start, to_end = starts[column] - points[row], ends[column] - points[row]
    within = np.sum(to_start * to_end, axis=1) <= 0
    return list(zip(row[within].tolist(), column[within].tolist(), strict=True))


def _passes_through(points: Floats, vertex: int, edge: int) -> bool:
    """Whether the outline, at a vertex that lies on an edge, crosses that edge.

    The edge may be met at its start, which then is a vertex of its own; meeting it at its end
    is meeting the next one at its start.
    """
    count = len(points)
    here = points[vertex]
    start, end = points[edge], points[(edge + 1) % count]
    if edge in {vertex, (vertex - 1) % count} or np.abs(here - end).max() <= _TOLERANCE_PX:
        return False
    if np.abs(here - start).max() <= _TOLERANCE_PX:
        start = points[edge - 1]
    neighbours = (points[vertex - 1], points[(vertex + 1) % count], start, end)
    angles = [float(np.arctan2(*(neighbour - here)[::-1])) for neighbour in neighbours]
    from_first = np.mod(np.subtract(angles[1:], angles[0]), 2 * np.pi)
    turn, one, other = from_first.tolist()
    nearest = min(abs(one - turn), abs(other - turn), one, other, 2 * np.pi - max(one, other))
    if nearest < _TOLERANCE_PX:  # it runs along itself
        return False
    return bool((one < turn) != (other < turn))
