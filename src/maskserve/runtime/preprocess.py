"""The one preprocessing, used by training, evaluation and serving alike."""

from __future__ import annotations

import numpy as np
from PIL import Image as PillowImage

from maskserve.core.manifest import Preprocess
from maskserve.core.predictor import Image

__all__ = ["resize_image", "resized_size", "to_graph_input"]


def resized_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Size (height, width) that the network sees of a photo of ``size``.

    The shorter side becomes ``short_side_px`` unless the longer one would exceed
    ``max_side_px``; rounding is Detectron2's (``ResizeShortestEdge``). No side gets below 1.
    """
    height, width = size
    scale = preprocess.short_side_px / min(height, width)
    if max(height, width) * scale > preprocess.max_side_px:
        scale = preprocess.max_side_px / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resize_image(image: Image, size: tuple[int, int]) -> Image:
    """Resize with Pillow's antialiased bilinear filter, on uint8, as Detectron2 does."""
    if image.shape[:2] == size:
        return image
    resized = PillowImage.fromarray(image).resize(
        (size[1], size[0]), PillowImage.Resampling.BILINEAR
    )
    return np.asarray(resized)


def to_graph_input(image: Image, preprocess: Preprocess) -> Image:
    """From an upright RGB photo to the graph's input, still without the batch axis.

    Returns:
        uint8, shape (h, w, 3), channels in ``preprocess.channel_order``.
    """
    resized = resize_image(image, resized_size(image.shape[:2], preprocess))
    if preprocess.channel_order == "bgr":
        resized = resized[:, :, ::-1]
    return np.ascontiguousarray(resized)
