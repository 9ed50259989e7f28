"""Axis-aligned boxes as arrays of float32, shape (N, 4), in pixels of a named frame.

``xyxy`` is left, top, right, bottom in continuous coordinates: the pixel in column ``c``
covers the interval from ``c`` to ``c + 1``, so a box around that single pixel is
``[c, r, c + 1, r + 1]``. ``xywh`` is left, top, width, height, as in COCO files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Boxes", "clip_boxes", "scale_boxes", "xyxy_to_xywh"]

Boxes = npt.NDArray[np.float32]


def clip_boxes(boxes_xyxy: Boxes, size: tuple[int, int]) -> Boxes:
    """Clip boxes to an image of ``size`` (height, width); returns a new array."""
    height, width = size
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes_xyxy, np.float32(0), limits)


def scale_boxes(boxes_xyxy: Boxes, source: tuple[int, int], target: tuple[int, int]) -> Boxes:
    """Move boxes from an image of size ``source`` to the same image at size ``target``.

    Sizes are (height, width); both axes are scaled by their own exact ratio.
    """
    y_ratio, x_ratio = target[0] / source[0], target[1] / source[1]
    return boxes_xyxy * np.array([x_ratio, y_ratio, x_ratio, y_ratio], dtype=np.float32)


def xyxy_to_xywh(boxes_xyxy: Boxes) -> Boxes:
    """Corners to left, top, width, height; returns a new array of the same shape."""
    boxes_xywh = boxes_xyxy.copy()
    boxes_xywh[:, 2:] -= boxes_xyxy[:, :2]
    return boxes_xywh
