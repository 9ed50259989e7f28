"""Outlines of masks as polygons."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskserve.core.masks import MaskCrop

__all__ = ["Ring", "crop_to_outlines", "crop_to_polygons"]

Ring = npt.NDArray[np.float64]
"""Closed polygon: float64, shape (K, 2), K >= 4, of (x, y); the first vertex is not repeated."""


def crop_to_polygons(crop: MaskCrop) -> list[Ring]:
    """The outer outline of each connected part of a mask, in pixels of the photo.

    Pixel (x, y) covers the square from (x, y) to (x + 1, y + 1). An outline runs along the
    borders of these squares, cutting each corner from one edge's middle to the next, so that
    slanted outlines need few vertices. ``core.masks.polygons_to_rle`` gives the mask back nearly
    exactly; holes are filled, since COCO's polygons cannot express them (an RLE can).

    Returns:
        One ring for each part; none for a mask without any pixel.
    """
    return _trace(crop, cv2.RETR_EXTERNAL)


def crop_to_outlines(crop: MaskCrop) -> list[Ring]:
    """As :func:`crop_to_polygons`, and the outlines of the holes as well."""
    return _trace(crop, cv2.RETR_CCOMP)


def _trace(crop: MaskCrop, retrieval: int) -> list[Ring]:
    """Trace on a grid of half pixels: odd rows and columns are centres, even ones are borders.

    A border point belongs to the shape if a pixel at either side does, a corner point if at
    least two of the four pixels around it do. The outermost points then lie exactly on the
    pixels' borders, which OpenCV's own outline (through the centres of the outermost pixels)
    misses by half a pixel.
    """
    height, width = crop.pixels.shape
    padded = np.pad(crop.pixels, 1).astype(np.uint8)
    beside = padded[:, :-1] + padded[:, 1:]  # left and right of each vertical border
    above = padded[:-1, :] + padded[1:, :]
    fine = np.zeros((2 * height + 1, 2 * width + 1), dtype=np.uint8)
    fine[1::2, 1::2] = crop.pixels
    fine[1::2, 0::2] = beside[1:-1] >= 1
    fine[0::2, 1::2] = above[:, 1:-1] >= 1
    fine[0::2, 0::2] = beside[:-1] + beside[1:] >= 2
    contours, _ = cv2.findContours(fine, retrieval, cv2.CHAIN_APPROX_SIMPLE)
    offset = np.array([crop.left, crop.top], dtype=np.float64)
    return [contour.reshape(-1, 2) / 2 + offset for contour in contours]
