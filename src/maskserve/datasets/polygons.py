"""Plane geometry of annotated outlines, in pixels of the upright photo.

The photo is the rectangle from (0, 0) to (width, height): a vertex at ``x == width`` lies on
its right border and is a proper place for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskserve.core.masks import Mask, polygons_to_rle, rle_area
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.types import Polygon

__all__ = [
    "FittedPolygons",
    "clip_polygon",
    "ellipse_polygon",
    "fit_polygons",
    "join_polygons",
    "rectangle_polygon",
    "trace_mask",
]

_MAX_DEVIATION_PX = 0.02
"""How far the polygon that stands for an ellipse may stay inside the true curve."""


def rectangle_polygon(x: float, y: float, width: float, height: float) -> Polygon:
    """The four corners, clockwise from the top left."""
    return np.array(
        [[x, y], [x + width, y], [x + width, y + height], [x, y + height]], dtype=np.float64
    )


def ellipse_polygon(cx: float, cy: float, *, rx: float, ry: float, theta: float = 0.0) -> Polygon:
    """Vertices on an ellipse, close enough together for the pixels to come out right.

    Args:
        cx: Centre, horizontally.
        cy: Centre, vertically.
        rx: Half the axis that is horizontal before the rotation.
        ry: Half the other axis.
        theta: Rotation in radians, clockwise on the screen, as in a browser's
            ``CanvasRenderingContext2D.ellipse`` and therefore in VIA.
    """
    # Chords stay inside a circle of radius r by r * (1 - cos(pi / vertices)).
    vertices = np.clip(np.pi * np.sqrt(max(rx, ry) / (2 * _MAX_DEVIATION_PX)), 16, 1024)
    angle = np.linspace(0, 2 * np.pi, int(np.ceil(vertices)), endpoint=False)
    along, across = rx * np.cos(angle), ry * np.sin(angle)
    return np.column_stack(
        (
            cx + along * np.cos(theta) - across * np.sin(theta),
            cy + along * np.sin(theta) + across * np.cos(theta),
        )
    )


def clip_polygon(polygon: Polygon, size: tuple[int, int]) -> Polygon:
    """The part of a polygon that lies in a photo of ``size`` (height, width).

    Sutherland and Hodgman, "Reentrant polygon clipping" (1974), one border after the other. A
    concave polygon that falls into several pieces stays one, joined along the border by edges
    that enclose nothing.

    Returns:
        float64, shape (K, 2); the polygon itself where it lies inside, and K = 0 where it lies
        outside.
    """
    height, width = size
    if np.all(polygon >= 0) and np.all(polygon <= (width, height)):
        return polygon
    for axis, border, sign in (
        (0, 0.0, 1),
        (0, float(width), -1),
        (1, 0.0, 1),
        (1, float(height), -1),
    ):
        if len(polygon) == 0:
            break
        depth = sign * (polygon[:, axis] - border)  # how far each vertex lies inside
        kept = []
        for i, vertex in enumerate(polygon):
            before, depth_before = polygon[i - 1], depth[i - 1]
            if (depth[i] >= 0) != (depth_before >= 0):
                share = depth_before / (depth_before - depth[i])
                crossing = before + share * (vertex - before)
                crossing[axis] = border
                kept.append(crossing)
            if depth[i] >= 0:
                kept.append(vertex)
        polygon = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return polygon


class FittedPolygons(tuple[Polygon, ...]):
    """Polygons that were clipped to their photo, and how far they had reached beyond it.

    Attributes:
        overshoot_px: Of the vertex furthest outside, to the nearest border; 0 if all lie inside.
    """

    overshoot_px: float = 0.0


def fit_polygons(polygons: Sequence[Polygon], size: tuple[int, int]) -> FittedPolygons:
    """Clip the outline of one instance to its photo and make sure that something is left.

    Args:
        polygons: The parts of the outline, as annotated.
        size: Size of the photo.

    Raises:
        FlawError: It cannot be the outline of an instance.
    """
    fitted = FittedPolygons(_fit(polygon, size) for polygon in polygons)
    vertices = np.concatenate(polygons)
    fitted.overshoot_px = float(np.max([-vertices, vertices - size[::-1]], initial=0))
    if rle_area(polygons_to_rle(fitted, size)) == 0:
        raise FlawError("is too small to cover a pixel")
    return fitted


def trace_mask(mask: Mask) -> list[Polygon]:
    """Outlines along the borders of the pixels, of a mask's parts and of their holes.

    Together, by the even-odd rule, they enclose the mask and nothing else; that is how
    :func:`join_polygons` and COCO's rasteriser take them. Where the outlines turn is all there
    is to know: on every row and in every column of such corners the first is joined with the
    second, the third with the fourth, and so on (O'Rourke, "Uniqueness of orthogonal
    connect-the-dots", 1988).

    Args:
        mask: bool, shape (H, W).

    Returns:
        Polygons with whole coordinates; none for a mask without any pixel.
    """
    padded = np.pad(mask, 1)
    along_rows = padded[1:] != padded[:-1]
    along_columns = padded[:, 1:] != padded[:, :-1]
    turns = along_rows[:, 1:] != along_rows[:, :-1]
    # Where two pixels touch by their corners alone, two outlines turn in the same place.
    turns_twice = along_rows[:, 1:] & along_rows[:, :-1] & along_columns[1:] & along_columns[:-1]
    y, x = np.nonzero(turns | turns_twice)
    times = 1 + turns_twice[y, x]
    y, x = np.repeat(y, times), np.repeat(x, times)
    in_columns = np.lexsort((y, x))
    across = np.empty(len(x), dtype=np.int64)  # the other end of each corner's vertical edge
    across[in_columns[0::2]], across[in_columns[1::2]] = in_columns[1::2], in_columns[0::2]

    partners = across.tolist()
    is_left = [True] * len(partners)
    polygons = []
    for first in range(0, len(partners), 2):
        corner, ring = first, []
        while is_left[corner]:
            beside = corner ^ 1  # the other end of its horizontal edge: corners go row by row
            is_left[corner] = is_left[beside] = False
            ring += [corner, beside]
            corner = partners[beside]
        if ring:
            polygons.append(np.column_stack((x[ring], y[ring])).astype(np.float64))
    return polygons


def join_polygons(polygons: Sequence[Polygon]) -> Polygon:
    """Make one closed line of several, for formats that have one outline for an instance.

    From each polygon a line leads to the next and back again, which encloses nothing. By the
    even-odd rule the result covers what lies in an odd number of the polygons: all of them if
    they are apart, and a hole stays one.

    Args:
        polygons: At least one.
    """
    joined = polygons[0]
    for polygon in polygons[1:]:
        # Nearly the shortest way; it does not have to be the shortest.
        here = _nearest(joined, polygon.mean(axis=0))
        ring = np.roll(polygon, -_nearest(polygon, joined[here]), axis=0)
        joined = np.concatenate((joined[: here + 1], ring, ring[:1], joined[here:]))
    return joined


def _nearest(polygon: Polygon, point: npt.NDArray[np.float64]) -> int:
    """Which vertex is the nearest one to a point."""
    return int(np.argmin(np.hypot(*(polygon - point).T)))


def _fit(polygon: Polygon, size: tuple[int, int]) -> Polygon:
    height, width = size
    if not np.isfinite(polygon).all():
        raise FlawError("has a coordinate that is not a number")
    distinct = len(np.unique(polygon, axis=0))
    if distinct < 3:
        raise FlawError(f"has {distinct} distinct vertices, but an outline needs at least 3")
    if _is_straight(polygon):
        raise FlawError("has no area: all its vertices lie on one line")
    clipped = clip_polygon(polygon, size)
    if len(clipped) < 3 or _is_straight(clipped):
        raise FlawError(f"lies outside the photo of {width}x{height} pixels")
    return clipped


def _is_straight(polygon: Polygon) -> bool:
    x, y = (polygon - polygon[0]).T
    furthest = np.argmax(np.hypot(x, y))
    return not np.any(x * y[furthest] - y * x[furthest])
