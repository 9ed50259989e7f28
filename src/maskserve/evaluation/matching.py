"""Which found instance belongs to which annotated one, by COCO's greedy rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from maskserve.core.boxes import xyxy_to_xywh
from maskserve.core.categories import Categories
from maskserve.core.types import Instances
from maskserve.datasets.types import Sample

__all__ = ["NONE", "Matching", "Overlaps", "compare_photo", "match"]

NONE = -1
"""Where an index would stand, but there is nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Everything that matching asks of a photo: N found instances against K annotated ones.

    Attributes:
        scores: float32, shape (N,), descending.
        found_classes: int64, shape (N,), class_index in the data set, whose classes go by name;
            NONE for a class that it does not have.
        classes: int64, shape (K,), class_index of what is annotated.
        is_crowd: bool, shape (K,).
        mask_iou: float64, shape (N, K), 0..1. With a crowd it is the share of the found
            instance that lies on it, as COCO has it.
        box_iou: The same of boxes, of which the annotated ones are those of the masks.
    """

    scores: npt.NDArray[np.float32]
    found_classes: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    is_crowd: npt.NDArray[np.bool_]
    mask_iou: npt.NDArray[np.float64]
    box_iou: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Who found what in a photo.

    Attributes:
        annotation_of: int64, shape (N,), index of the annotation that each found instance
            takes; NONE for one that is wrong.
        counts: bool, shape (N,); False for what lies on a crowd, or is of a class that the
            data set does not have: it is neither right nor wrong.
    """

    annotation_of: npt.NDArray[np.int64]
    counts: npt.NDArray[np.bool_]


def compare_photo(sample: Sample, instances: Instances, categories: Categories) -> Overlaps:
    """Measure every overlap in a photo once."""
    index_by_name = {name: index for index, name in enumerate(categories.names)}
    class_map = np.array(
        [index_by_name.get(name, NONE) for name in instances.class_names], dtype=np.int64
    )
    truth = sample.annotations
    rles = [annotation.to_rle(sample.image_size) for annotation in truth]
    crowds = [annotation.is_crowd for annotation in truth]
    boxes = [annotation.box_xyxy(sample.image_size) for annotation in truth]
    shape = (len(instances), len(truth))
    return Overlaps(
        scores=instances.scores,
        found_classes=class_map[instances.class_indices],
        classes=np.array([annotation.class_index for annotation in truth], dtype=np.int64),
        is_crowd=np.array(crowds, dtype=np.bool_),
        mask_iou=np.reshape(coco_mask.iou(instances.rles(), rles, crowds), shape),
        box_iou=np.reshape(
            coco_mask.iou(
                xyxy_to_xywh(instances.boxes_xyxy).astype(np.float64),
                xyxy_to_xywh(np.array(boxes, dtype=np.float32).reshape(-1, 4)).astype(np.float64),
                crowds,
            ),
            shape,
        ),
    )


def match(overlaps: Overlaps, *, iou: float, min_score: float = 0.0) -> Matching:
    """Give each annotation to the best-scored instance that fits it.

    From the best score down, an instance takes the annotation of its class whose mask it
    overlaps most, by at least ``iou``, and which is still free. Crowds come last: they take
    what fits no single annotation, and any number of it.

    Args:
        overlaps: Of a photo.
        iou: Least intersection over union of masks.
        min_score: Weaker instances neither match nor count.
    """
    n, k = overlaps.mask_iou.shape
    annotation_of = np.full(n, NONE, dtype=np.int64)
    counts = (overlaps.found_classes != NONE) & (overlaps.scores >= min_score)
    fits = (overlaps.mask_iou >= iou) & (overlaps.found_classes[:, None] == overlaps.classes)
    free = np.ones(k, dtype=np.bool_)
    for i in np.flatnonzero(counts):
        single = np.flatnonzero(fits[i] & free & ~overlaps.is_crowd)
        if single.size:
            best = single[np.argmax(overlaps.mask_iou[i, single])]
            annotation_of[i] = best
            free[best] = False
        elif (fits[i] & overlaps.is_crowd).any():
            counts[i] = False
    return Matching(annotation_of, counts)
