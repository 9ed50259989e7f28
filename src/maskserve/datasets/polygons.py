"""Plane geometry of annotated outlines, in pixels of the upright photo.

The photo is the rectangle from (0, 0) to (width, height): a vertex at ``x == width`` lies on
its right border and is a proper place for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskserve.core.masks import polygons_to_rle, rle_area
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.types import Polygon

__all__ = ["clip_polygon", "ellipse_polygon", "fit_polygons", "rectangle_polygon"]

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


def fit_polygons(polygons: Sequence[Polygon], size: tuple[int, int]) -> tuple[Polygon, ...]:
    """Clip the outline of one instance to its photo and make sure that something is left.

    Args:
        polygons: The parts of the outline, as annotated.
        size: Size of the photo.

    Raises:
        FlawError: It cannot be the outline of an instance.
    """
    fitted = tuple(_fit(polygon, size) for polygon in polygons)
    if rle_area(polygons_to_rle(fitted, size)) == 0:
        raise FlawError("is too small to cover a pixel")
    return fitted


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
