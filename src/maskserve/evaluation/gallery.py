"""A picture of photos with what was annotated beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from maskserve.core.boxes import clip_boxes, scale_boxes
from maskserve.core.masks import crop_from_rle, encode_rle, union
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset, Sample
from maskserve.runtime.image_io import read_image, write_image
from maskserve.runtime.render import draw

__all__ = ["Window", "annotated_instances", "draw_gallery", "draw_panel", "write_gallery"]

Window = tuple[int, int, int, int]
"""Left, top, right, bottom of a part of a photo, in whole pixels within it."""

_GAP_PX = 6
_CAPTION_PX = 24
_FONT_PX = 15
_LONGEST_NAME = 30
_MOST_LABELS = 12
"""More instances than that would disappear behind their labels."""

_INK = (40, 40, 40)
_PAPER = (255, 255, 255)


def annotated_instances(sample: Sample, class_names: Sequence[str]) -> Instances:
    """What was annotated in a photo, as if a perfect model had found it; without crowds."""
    annotations = [a for a in sample.annotations if not a.is_crowd]
    boxes = [a.box_xyxy(sample.image_size) for a in annotations]
    return Instances(
        sample.image_size,
        tuple(class_names),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.ones(len(annotations), dtype=np.float32),
        np.array([a.class_index for a in annotations], dtype=np.int64),
        tuple(crop_from_rle(a.to_rle(sample.image_size)) for a in annotations),
    )


def draw_gallery(
    dataset: Dataset,
    predictions: Sequence[Instances],
    *,
    min_score: float,
    limit: int = 12,
    pairs_per_row: int = 2,
    cell_size: tuple[int, int] = (300, 400),
) -> Image:
    """A grid of pairs of the same photo: annotations on the left, predictions on the right.

    Args:
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order.
        min_score: Weaker predictions are not drawn.
        limit: At most so many photos, spread evenly over the data set.
        pairs_per_row: Pairs side by side.
        cell_size: (height, width) into which each photo is fitted.

    Returns:
        uint8, shape (H, W, 3), RGB; without any photo if the data set has none.

    Raises:
        ImageError: A photo cannot be read.
    """
    count = min(limit, len(dataset))
    shown = [i * len(dataset) // count for i in range(count)]
    pairs = [
        _draw_pair(
            dataset.samples[i],
            annotated_instances(dataset.samples[i], dataset.categories.names),
            predictions[i].select(predictions[i].scores >= min_score),
            cell_size,
        )
        for i in shown
    ]
    rows = -(-count // pairs_per_row)
    columns = min(pairs_per_row, count)
    pair_height, pair_width = _pair_size(cell_size)
    picture = PillowImage.new(
        "RGB",
        (columns * (pair_width + _GAP_PX) + _GAP_PX, rows * (pair_height + _GAP_PX) + _GAP_PX),
        _PAPER,
    )
    for position, pair in enumerate(pairs):
        row, column = divmod(position, pairs_per_row)
        corner = (
            _GAP_PX + column * (pair_width + _GAP_PX),
            _GAP_PX + row * (pair_height + _GAP_PX),
        )
        picture.paste(pair, corner)
    return np.asarray(picture)


def write_gallery(
    path: Path, dataset: Dataset, predictions: Sequence[Instances], *, min_score: float
) -> None:
    """Write :func:`draw_gallery` as a JPEG, PNG or WebP, by the suffix of ``path``.

    Raises:
        ParameterError: Another suffix.
        ImageError: A photo cannot be read.
        OutputError: The picture cannot be written.
    """
    write_image(path, draw_gallery(dataset, predictions, min_score=min_score))


def draw_panel(
    image: Image,
    instances: Instances,
    *,
    cell_size: tuple[int, int],
    window: Window | None = None,
    labels: bool = True,
) -> Image:
    """A photo, or a part of it, fitted into a cell and with instances drawn into it.

    Args:
        image: uint8, shape (H, W, 3), RGB.
        instances: In its pixels.
        cell_size: (height, width) of the cell.
        window: The part to show; all by default.
        labels: Whether each instance gets its class and score.

    Returns:
        uint8, shape (h, w, 3), RGB: as high or as wide as the cell, with the ratio of sides of
        the photo or the window.
    """
    if window is not None:
        left, top, right, bottom = window
        image = image[top:bottom, left:right]
        instances = _cut_out(instances, window)
    height, width = image.shape[:2]
    scale = min(cell_size[0] / height, cell_size[1] / width)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    # Scaled before drawing, so that lines and letters come out in their own size.
    image = np.asarray(PillowImage.fromarray(image).resize(size[::-1]))
    return draw(image, _scale_instances(instances, size), labels=labels)


def _pair_size(cell_size: tuple[int, int]) -> tuple[int, int]:
    height, width = cell_size
    return _CAPTION_PX + height, 2 * width + _GAP_PX


def _draw_pair(
    sample: Sample, annotated: Instances, found: Instances, cell_size: tuple[int, int]
) -> PillowImage.Image:
    """A photo twice, under its name and the number of instances in either."""
    pair_height, pair_width = _pair_size(cell_size)
    pair = PillowImage.new("RGB", (pair_width, pair_height), _PAPER)
    image = read_image(sample.image_path)
    caption = ImageDraw.Draw(pair)
    font = ImageFont.load_default(_FONT_PX)
    for left, title, instances in (
        (0, f"{_shorten(sample.image_path.name)}: {len(annotated)} annotated", annotated),
        (cell_size[1] + _GAP_PX, f"{len(found)} found", found),
    ):
        caption.text((left, 2), title, _INK, font)
        labels = len(instances) <= _MOST_LABELS
        panel = draw_panel(image, instances, cell_size=cell_size, labels=labels)
        pair.paste(PillowImage.fromarray(panel), (left, _CAPTION_PX))
    return pair


def _shorten(name: str) -> str:
    """Hashes as names are common, and longer than a photo is wide."""
    kept = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:kept]}…{name[-kept:]}"


def _cut_out(instances: Instances, window: Window) -> Instances:
    """What can be seen of the instances in a part of the photo."""
    left, top, right, bottom = window
    size = (bottom - top, right - left)
    crops = []
    for crop in instances.crops:
        seen = union([crop], instances.image_size)[top:bottom, left:right]
        crops.append(crop_from_rle(encode_rle(seen)))
    corner = np.array([left, top, left, top], dtype=np.float32)
    cut_out = replace(
        instances,
        image_size=size,
        boxes_xyxy=clip_boxes(instances.boxes_xyxy - corner, size),
        crops=tuple(crops),
    )
    return cut_out.select(cut_out.areas_px > 0)


def _scale_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """The same instances in the same photo at another size."""
    crops = []
    for mask in instances.masks:
        share = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        crops.append(crop_from_rle(encode_rle(share >= 0.5)))
    return replace(
        instances,
        image_size=size,
        boxes_xyxy=scale_boxes(instances.boxes_xyxy, instances.image_size, size),
        crops=tuple(crops),
    )
