"""Masks: pasting network grids, run-length encoding, polygons, and counting covered pixels.

A mask exists in three forms. The network gives a small *grid* of probabilities a box.
Pasting turns it into a :class:`MaskCrop`, a boolean array that is only as large as its box.
COCO's run-length encoding (:data:`Rle`) is the form of files and of HTTP answers. No function
here ever needs a float array of the photo's size.

Sizes are (height, width) in pixels of the upright photo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

__all__ = [
    "MaskCrop",
    "Rle",
    "crop_from_rle",
    "crop_to_rle",
    "decode_rle",
    "encode_rle",
    "paste_grid",
    "polygons_to_rle",
    "rle_area",
    "rle_box_xyxy",
    "union",
]

Mask = npt.NDArray[np.bool_]


class Rle(TypedDict):
    """COCO's compressed run-length encoding: column by column, runs of 0 and 1 in turn."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True, eq=False)
class MaskCrop:
    """A boolean mask that is False everywhere outside a rectangle.

    Attributes:
        top: Row of the photo at which ``pixels`` begins.
        left: Column of the photo at which ``pixels`` begins.
        pixels: bool, shape (h, w); may be (0, 0) for a mask without any pixel.
    """

    top: int
    left: int
    pixels: Mask

    @property
    def area_px(self) -> int:
        return int(np.count_nonzero(self.pixels))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where ``pixels`` lies in the photo: ``photo[crop.slices]`` has the crop's shape."""
        h, w = self.pixels.shape
        return slice(self.top, self.top + h), slice(self.left, self.left + w)


_STRIP_PX = 128
EMPTY_CROP = MaskCrop(0, 0, np.zeros((0, 0), dtype=np.bool_))


def _stretch(
    grid: npt.NDArray[np.float32], start: float, end: float, first_px: int, last_px: int
) -> npt.NDArray[np.float32]:
    """Sample a grid's rows at pixel centres: float32, shape (last_px - first_px, columns).

    The rows lie evenly between ``start`` and ``end``; outside the grid counts as zero.
    """
    count = len(grid)
    position = (np.arange(first_px, last_px) + 0.5 - start) / (end - start) * count - 0.5
    below = np.floor(position)
    fraction = (position - below).astype(np.float32)[:, None]
    padded = np.zeros((count + 2, grid.shape[1]), dtype=np.float32)
    padded[1:-1] = grid
    index = below.astype(np.int64) + 1
    stretched: npt.NDArray[np.float32] = padded[np.clip(index, 0, count + 1)]
    stretched *= 1 - fraction
    above = padded[np.clip(index + 1, 0, count + 1)]
    above *= fraction
    stretched += above
    return stretched


def paste_grid(
    grid: npt.NDArray[np.float32],
    box_xyxy: npt.NDArray[np.float32],
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> MaskCrop:
    """Stretch a grid of probabilities over its box and threshold it.

    Bilinear at pixel centres with zeros outside the grid, which is what Detectron2's
    ``paste_masks_in_image`` computes (``grid_sample`` with ``align_corners=False``). Columns
    are stretched first, then rows, a strip at a time so that numbers stay in the CPU's cache. Two
    matrix products would do the same, but numpy's run in threads of their own, which are in the
    way of a network's.

    Args:
        grid: float32, shape (k, k), probabilities in 0..1.
        box_xyxy: float32, shape (4,), in pixels of the photo; may reach beyond it.
        size: Size of the photo.
        threshold: Pixels of this probability or more belong to the mask.

    Returns:
        The mask, cut to the photo; without any pixel if the box is empty or lies outside.
    """
    height, width = size
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    left, right = max(int(np.floor(x0)) - 1, 0), min(int(np.ceil(x1)) + 1, width)
    top, bottom = max(int(np.floor(y0)) - 1, 0), min(int(np.ceil(y1)) + 1, height)
    if not (x1 > x0 and y1 > y0 and right > left and bottom > top):
        return EMPTY_CROP
    wide = np.ascontiguousarray(_stretch(grid.T, x0, x1, left, right).T)
    pixels = np.empty((bottom - top, right - left), dtype=np.bool_)
    for first in range(top, bottom, _STRIP_PX):
        strip = _stretch(wide, y0, y1, first, min(first + _STRIP_PX, bottom))
        np.greater_equal(strip, threshold, out=pixels[first - top :][: len(strip)])
    return MaskCrop(top, left, pixels)


def crop_to_rle(crop: MaskCrop, size: tuple[int, int]) -> Rle:
    """COCO compressed RLE of a crop placed in a photo of ``size``.

    Only the columns that the crop touches are looked at; the empty ones before and after it
    lengthen the first and the last run.
    """
    height, width = size
    strip = np.zeros((height, crop.pixels.shape[1]), dtype=np.bool_)
    strip[crop.slices[0], :] = crop.pixels
    flat = np.concatenate(([False], strip.ravel(order="F"), [False]))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    edges += crop.left * height
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0:  # the mask reaches the last pixel: COCO writes no empty run after it
        counts = counts[:-1]
    compressed = coco_mask.frPyObjects(
        {"size": [height, width], "counts": counts.tolist()}, height, width
    )
    return _to_text(compressed)


def crop_from_rle(rle: Rle) -> MaskCrop:
    """The smallest crop that holds an RLE's mask."""
    x0, y0, x1, y1 = (int(v) for v in rle_box_xyxy(rle))
    if x1 <= x0 or y1 <= y0:
        return EMPTY_CROP
    return MaskCrop(y0, x0, decode_rle(rle)[y0:y1, x0:x1].copy())


def encode_rle(mask: Mask) -> Rle:
    """COCO compressed RLE of a bool array of shape (H, W)."""
    return _to_text(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def decode_rle(rle: Rle) -> Mask:
    """The bool array of shape (H, W) that an RLE stands for."""
    mask: Mask = coco_mask.decode(_to_bytes(rle)).astype(np.bool_)
    return mask


def rle_area(rle: Rle) -> int:
    """Number of covered pixels."""
    return int(coco_mask.area(_to_bytes(rle)))


def rle_box_xyxy(rle: Rle) -> npt.NDArray[np.float32]:
    """Tight box around the covered pixels, float32 of shape (4,); zeros if there are none."""
    x, y, w, h = coco_mask.toBbox(_to_bytes(rle))
    return np.array([x, y, x + w, y + h], dtype=np.float32)


def polygons_to_rle(polygons: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> Rle:
    """Rasterise polygons and unite them, by COCO's own rules.

    Args:
        polygons: Arrays of shape (K, 2), K >= 3, of (x, y) vertices in pixels.
        size: Size of the photo.
    """
    height, width = size
    flat = [np.asarray(polygon, dtype=np.float64).ravel().tolist() for polygon in polygons]
    return _to_text(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))


def union(crops: Iterable[MaskCrop], size: tuple[int, int]) -> Mask:
    """Pixels that lie in at least one crop: bool of shape (H, W)."""
    covered = np.zeros(size, dtype=np.bool_)
    for crop in crops:
        covered[crop.slices] |= crop.pixels
    return covered


def _to_text(compressed: dict[str, Any]) -> Rle:
    return {
        "size": [int(v) for v in compressed["size"]],
        "counts": compressed["counts"].decode("ascii"),
    }


def _to_bytes(rle: Rle) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
