"""From found instances to regions of Label Studio."""

from __future__ import annotations

import uuid
from typing import Any

import cv2
import numpy as np

from maskserve.api.dialects.label_config import LabelConfig
from maskserve.core.brush_rle import encode_brush
from maskserve.core.masks import MaskCrop, union
from maskserve.core.types import Instances
from maskserve.datasets.polygons import join_polygons
from maskserve.runtime.contours import Ring, crop_to_polygons

__all__ = ["to_prediction"]

_TOLERANCE_PX = 1.0
"""How far a polygon may stay from the mask's outline, so that a person can still edit it."""


def to_prediction(
    instances: Instances, config: LabelConfig, *, model_version: str
) -> dict[str, Any]:
    """A prediction with one region for each instance whose class has a label.

    Brush strokes are the masks to the pixel. Polygons are simplified, holes are filled, and
    the parts of an instance are joined by lines. Sizes are those of the upright photo, as
    browsers show it.
    https://labelstud.io/guide/predictions
    """
    height, width = instances.image_size
    regions = []
    for crop, score, class_index in zip(
        instances.crops,
        instances.scores.tolist(),
        instances.class_indices.tolist(),
        strict=True,
    ):
        label = config.label_of(instances.class_names[class_index])
        if label is None or not crop.area_px:
            continue
        regions.append(
            {
                "id": uuid.uuid4().hex[:10],
                "from_name": config.from_name,
                "to_name": config.to_name,
                "type": config.kind,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": score,
                "value": {
                    **_shape(crop, (height, width), config),
                    config.kind: [label],
                },
            }
        )
    scores = [region["score"] for region in regions]
    return {
        "result": regions,
        "score": sum(scores) / len(scores) if scores else 0.0,
        "model_version": model_version,
    }


def _shape(crop: MaskCrop, size: tuple[int, int], config: LabelConfig) -> dict[str, Any]:
    if config.kind == "brushlabels":
        return {"format": "rle", "rle": encode_brush(union([crop], size))}
    height, width = size
    return {"points": (_outline(crop) * (100 / width, 100 / height)).tolist(), "closed": True}


def _outline(crop: MaskCrop) -> Ring:
    """One outline of a mask's parts, simplified after Douglas and Peucker (1973)."""
    rings = []
    for ring in crop_to_polygons(crop):
        simple = cv2.approxPolyDP(ring.astype(np.float32), _TOLERANCE_PX, True)
        rings.append(simple.reshape(-1, 2).astype(np.float64) if len(simple) > 2 else ring)
    return join_polygons(rings)
