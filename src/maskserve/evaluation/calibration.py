"""The default confidence threshold, chosen on photos that were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from pycocotools import mask as coco_mask

from maskserve.core.categories import Categories
from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset, Sample

__all__ = ["Calibration", "ThresholdPoint", "calibrate_threshold"]

_NO_EVIDENCE = 0.5


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """What is right and wrong when only instances of at least this score are shown.

    Attributes:
        threshold: A score that occurred.
        precision: Share of the shown instances that are right.
        recall: Share of the annotated instances that are shown.
        f1: Harmonic mean of the two.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The best threshold and how the others compare.

    Attributes:
        threshold: In the middle of the scores between which F1 is as good as the best.
        f1: F1 at that threshold, 0..1.
        curve: One point for each score that occurred, from the highest to the lowest.
    """

    threshold: float
    f1: float
    curve: tuple[ThresholdPoint, ...]


def calibrate_threshold(
    dataset: Dataset,
    predictions: Sequence[Instances],
    *,
    min_score: float = 0.05,
    iou: float = 0.5,
    slack: float = 0.005,
) -> Calibration:
    """Choose the confidence threshold with the best F1, all photos and classes pooled.

    An instance is right if its mask overlaps that of an annotated instance of its class by at
    least ``iou``, and no better-scored one has taken that already: COCO's greedy matching.
    What lies on a crowd is neither right nor wrong.

    F1 changes only where an instance's score is crossed, so it holds between two scores; the
    middle of that gap is the threshold least sensitive to small changes of score. Of several
    gaps that are as good as the best but for ``slack``, the highest counts: on a few annotated
    photos such a difference is chance, and photos in use often show nothing, where only a high
    threshold helps.

    Args:
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order.
        min_score: The threshold, a low one, that they were made with.
        iou: Least intersection over union of masks.
        slack: What F1 may be below the best, 0..1.

    Returns:
        The threshold 0.5 and an F1 of 0 if nothing was right at any threshold.
    """
    annotated = 0
    verdicts: list[tuple[float, bool]] = []
    for sample, instances in zip(dataset.samples, predictions, strict=True):
        annotated += sum(not annotation.is_crowd for annotation in sample.annotations)
        verdicts += _judge(sample, instances, dataset.categories, iou)
    verdicts.sort(reverse=True)

    curve: list[ThresholdPoint] = []
    shown = right = 0
    for threshold, group in groupby(verdicts, key=lambda verdict: verdict[0]):
        of_score = [is_right for _, is_right in group]
        shown += len(of_score)
        right += sum(of_score)
        f1 = 2 * right / (shown + annotated)
        curve.append(ThresholdPoint(threshold, right / shown, right / max(annotated, 1), f1))
    best = max((point.f1 for point in curve), default=0.0)
    if best == 0:
        return Calibration(_NO_EVIDENCE, 0.0, tuple(curve))
    # At a threshold within a gap, the instances of its upper score and better ones are shown.
    scores = [point.threshold for point in curve]
    middle, f1 = next(
        ((upper + lower) / 2, point.f1)
        for upper, lower, point in zip(
            scores, [*scores[1:], min(min_score, scores[-1])], curve, strict=True
        )
        if point.f1 >= best - slack
    )
    return Calibration(middle, f1, tuple(curve))


def _judge(
    sample: Sample, instances: Instances, categories: Categories, iou: float
) -> list[tuple[float, bool]]:
    """Score and rightness of each instance that is neither on a crowd nor of a foreign class."""
    truth = sample.annotations
    rles = instances.rles()
    overlaps = np.reshape(
        coco_mask.iou(
            rles, [a.to_rle(sample.image_size) for a in truth], [a.is_crowd for a in truth]
        ),
        (len(instances), len(truth)),
    )
    free = [True] * len(truth)
    verdicts = []
    for i, score in enumerate(instances.scores.tolist()):
        name = instances.class_names[instances.class_indices[i]]
        if name not in categories.names:
            continue
        class_index = categories.index_of(name)
        # Crowds come last: they take what fits no single instance, and any number of it.
        candidates = [
            (not truth[k].is_crowd, overlaps[i, k], k)
            for k in range(len(truth))
            if truth[k].class_index == class_index and free[k] and overlaps[i, k] >= iou
        ]
        if not candidates:
            verdicts.append((score, False))
            continue
        is_right, _, k = max(candidates)
        if is_right:
            free[k] = False
            verdicts.append((score, True))
    return verdicts
