"""Precision against recall, as COCO draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset
from maskserve.evaluation.matching import NONE, Overlaps, compare_photo, match

__all__ = ["IOUS", "RECALLS", "interpolate_precision", "precision_recall"]

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which precision is read off."""

IOUS = np.linspace(0.5, 0.95, 10)
"""How well a mask must fit: COCO's AP is the mean over these."""


def precision_recall(dataset: Dataset, predictions: Sequence[Instances]) -> npt.NDArray[np.float64]:
    """Precision of masks at each of :data:`RECALLS`, at each of :data:`IOUS`.

    The mean of a row is pycocotools' AP at that IoU, from 0 to 1.

    Args:
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order.

    Returns:
        Shape (10, 101), 0..1: the mean over the classes of which anything is annotated; zeros
        if there are none.
    """
    photos = [
        compare_photo(sample, instances, dataset.categories)
        for sample, instances in zip(dataset.samples, predictions, strict=True)
    ]
    return np.stack([_at_iou(photos, len(dataset.categories), float(iou)) for iou in IOUS])


def interpolate_precision(
    scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], *, annotated: int
) -> npt.NDArray[np.float64]:
    """The best precision at each of :data:`RECALLS` or any higher recall.

    Args:
        scores: Shape (N,), of found instances in any order.
        right: Shape (N,), which of them are.
        annotated: How many there are to find, at least 1.

    Returns:
        Shape (101,), 0..1; zero beyond the highest recall that was reached.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / annotated, RECALLS, side="left")
    return np.append(precision, 0.0)[places]


def _at_iou(photos: Sequence[Overlaps], class_count: int, iou: float) -> npt.NDArray[np.float64]:
    matchings = [match(photo, iou=iou) for photo in photos]
    curves = []
    for class_index in range(class_count):
        annotated = sum(
            int(np.sum((photo.classes == class_index) & ~photo.is_crowd)) for photo in photos
        )
        if not annotated:
            continue
        scores, right = [np.zeros(0)], [np.zeros(0, dtype=np.bool_)]
        for photo, matching in zip(photos, matchings, strict=True):
            shown = matching.counts & (photo.found_classes == class_index)
            scores.append(photo.scores[shown])
            right.append(matching.annotation_of[shown] != NONE)
        curves.append(
            interpolate_precision(
                np.concatenate(scores), np.concatenate(right), annotated=annotated
            )
        )
    return np.mean(curves, axis=0) if curves else np.zeros(len(RECALLS))
