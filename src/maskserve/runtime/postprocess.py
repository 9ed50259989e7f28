"""From raw detections in the resized photo to instances in the photo itself."""

from __future__ import annotations

import numpy as np

from maskserve.core.boxes import clip_boxes, scale_boxes
from maskserve.core.manifest import Manifest
from maskserve.core.masks import paste_grid
from maskserve.core.types import Instances
from maskserve.runtime.engine import RawDetections

__all__ = ["to_instances"]


def to_instances(
    raw: RawDetections,
    manifest: Manifest,
    *,
    resized: tuple[int, int],
    image_size: tuple[int, int],
) -> Instances:
    """Scale boxes back, clip them, paste their masks, and drop boxes without any area.

    Args:
        raw: Detections in pixels of the resized photo.
        manifest: Gives class names and the mask threshold.
        resized: (height, width) that the network saw.
        image_size: (height, width) of the photo.
    """
    boxes = clip_boxes(scale_boxes(raw.boxes_xyxy, resized, image_size), image_size)
    kept = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    crops = tuple(
        paste_grid(
            raw.mask_grids[i],
            boxes[i],
            image_size,
            threshold=manifest.postprocess.mask_threshold,
        )
        for i in kept
    )
    return Instances(
        image_size, manifest.classes, boxes[kept], raw.scores[kept], raw.class_indices[kept], crops
    )
