"""The default confidence threshold, chosen on photos that were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset
from maskserve.evaluation.matching import NONE, compare_photo, match

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
    backgrounds: Sequence[Instances] = (),
    max_false_per_photo: float = 0.1,
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
        backgrounds: What was found in photos that show no instance at all.
        max_false_per_photo: The threshold is raised until there are at most so many of them, in
            the mean, whatever that does to F1.

    Returns:
        The threshold 0.5 and an F1 of 0 if nothing was right at any threshold.
    """
    annotated = 0
    verdicts: list[tuple[float, bool]] = []
    for sample, instances in zip(dataset.samples, predictions, strict=True):
        annotated += sum(not annotation.is_crowd for annotation in sample.annotations)
        matching = match(compare_photo(sample, instances, dataset.categories), iou=iou)
        scores = instances.scores[matching.counts].tolist()
        is_right = (matching.annotation_of[matching.counts] != NONE).tolist()
        verdicts += zip(scores, is_right, strict=True)
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
    quiet = _quiet_threshold(backgrounds, max_false_per_photo)
    if quiet > middle:
        shown_points = [point for point in curve if point.threshold > quiet]
        return Calibration(quiet, shown_points[-1].f1 if shown_points else 0.0, tuple(curve))
    return Calibration(middle, f1, tuple(curve))


def _quiet_threshold(backgrounds: Sequence[Instances], max_false_per_photo: float) -> float:
    """The lowest threshold at which few enough instances are found where there are none."""
    scores = sorted((s for found in backgrounds for s in found.scores.tolist()), reverse=True)
    allowed = int(max_false_per_photo * len(backgrounds))
    return scores[allowed] if len(scores) > allowed else 0.0
