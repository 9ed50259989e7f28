"""A picture of what the network learns from, to see whether annotations survive augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskserve.core.manifest import Preprocess
from maskserve.core.masks import crop_from_rle, encode_rle
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.evaluation import draw_panel
from maskserve.training.data import Example, TrainingExamples

__all__ = ["draw_examples"]

_COLUMNS = 4
_SIDE = 240
_GAP = 4
_GREY = 128


def draw_examples(
    examples: TrainingExamples,
    class_names: Sequence[str],
    preprocess: Preprocess,
    *,
    count: int = 8,
) -> Image:
    """The first training examples in a grid, with their masks.

    Args:
        examples: Those of a run.
        class_names: By class_index.
        preprocess: Tells the order of the channels.
        count: How many.

    Returns:
        uint8, shape (H, W, 3), RGB.

    Raises:
        ImageError: A photo cannot be read.
    """
    rows = -(-count // _COLUMNS)
    pitch = _SIDE + _GAP
    grid = np.full((rows * pitch - _GAP, _COLUMNS * pitch - _GAP, 3), _GREY, dtype=np.uint8)
    for number in range(count):
        row, column = divmod(number, _COLUMNS)
        panel = _draw_example(examples[number], class_names, preprocess)
        height, width = panel.shape[:2]
        top, left = row * pitch, column * pitch
        grid[top : top + height, left : left + width] = panel
    return grid


def _draw_example(example: Example, class_names: Sequence[str], preprocess: Preprocess) -> Image:
    photo, target = example
    image = np.round(255 * photo.numpy().transpose(1, 2, 0)).astype(np.uint8)
    if preprocess.channel_order == "bgr":
        image = image[..., ::-1]
    masks = target["masks"].numpy().astype(np.bool_)
    instances = Instances(
        image_size=image.shape[:2],
        class_names=tuple(class_names),
        boxes_xyxy=target["boxes"].numpy().astype(np.float32),
        scores=np.ones(len(masks), dtype=np.float32),
        class_indices=target["labels"].numpy() - 1,
        crops=tuple(crop_from_rle(encode_rle(mask)) for mask in masks),
    )
    return draw_panel(
        np.ascontiguousarray(image),
        instances,
        cell_size=(_SIDE, _SIDE),
        labels=len(class_names) > 1,
    )
