"""How far average precision can be trusted: bootstrap over photos.

Photos are drawn with replacement until there are as many as before, average precision is
computed of these, and so on many times; its spread shows what other photos of the same kind
would have given. Photos and not instances are drawn, because instances of one photo have much in
common. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

Intervals are a little too narrow on few photos: in simulations of 13, 60 and 160 photos those of
95 % held the truth in 91, 92 and 93 % of cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset
from maskserve.evaluation.coco import Kind, run_cocoeval

__all__ = [
    "RESAMPLED_NAMES",
    "Interval",
    "Matches",
    "MetricName",
    "average_precisions",
    "draw_resamples",
    "percentile_interval",
    "resample_metrics",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MetricName = Literal["AP", "AP50", "APs", "APm", "APl"]
RESAMPLED_NAMES: tuple[MetricName, ...] = get_args(MetricName)
"""Those of ``METRIC_NAMES`` that :func:`resample_metrics` gives."""

_AREAS: dict[MetricName, int] = {"AP": 0, "APs": 1, "APm": 2, "APl": 3}
_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 2_000_000


class Interval(NamedTuple):
    """From ``low`` to ``high``, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What was right and wrong of one class, as COCO's greedy matching within photos found.

    Matching knows one photo at a time, so it stays as it is whichever photos are drawn.

    Attributes:
        photo: int64, shape (N,): position of each detection's photo; best score first.
        right: bool, shape (T, N), for T thresholds of IoU.
        wrong: bool, shape (T, N). What is neither lies on a crowd, or has another size.
        annotated: int64, shape (P,): instances to be found in each of the P photos.
    """

    photo: IntArray
    right: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]
    annotated: IntArray


def draw_resamples(photo_count: int, *, count: int, seed: int) -> IntArray:
    """Draw photos with replacement.

    Returns:
        int64, shape (count, photo_count): how often each photo is in each resample.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(photo_count, np.full(photo_count, 1 / photo_count), size=count)


def resample_metrics(
    kind: Kind, dataset: Dataset, predictions: Sequence[Instances], *, resamples: IntArray
) -> dict[MetricName, FloatArray]:
    """Average precision of every resample of a data set's photos.

    The numbers are those that pycocotools would give for a data set in which each photo stands
    as often as it was drawn, except that it interleaves the copies of detections that have one
    score in one photo.

    Args:
        kind: Boxes or masks.
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order.
        resamples: As of :func:`draw_resamples`: shape (R, photos).

    Returns:
        By :data:`RESAMPLED_NAMES`: float64, shape (R,), 0..100; nan where a resample has no
        instance of the size.
    """
    evaluation = run_cocoeval(kind, dataset, predictions)
    of_area: dict[MetricName, FloatArray] = {}
    for name, area in _AREAS.items():
        classes = [
            average_precisions(_matches(evaluation, dataset, k, area), resamples)
            for k in range(len(evaluation.params.catIds))
        ]
        of_area[name] = _mean_of_measured(np.stack(classes))
    return {
        "AP50": 100 * of_area["AP"][:, 0],
        **{name: 100 * values.mean(axis=1) for name, values in of_area.items()},
    }


def average_precisions(matches: Matches, resamples: IntArray) -> FloatArray:
    """Average precision of one class in every resample, at every threshold of IoU.

    Precision is interpolated at 101 recalls, as COCO's is.

    Args:
        matches: Of P photos.
        resamples: Shape (R, P).

    Returns:
        float64, shape (R, T), 0..1; nan where a resample has no instance to be found.
    """
    annotated = (resamples @ matches.annotated).astype(np.float64)
    annotated[annotated == 0] = np.nan
    columns = [
        _average_precision(matches.photo, right, wrong, annotated, resamples.astype(np.float64))
        for right, wrong in zip(matches.right, matches.wrong, strict=True)
    ]
    return np.stack(columns, axis=1)


def percentile_interval(values: FloatArray, *, level: float = 0.95) -> Interval | None:
    """Where the middle ``level`` of the values lies; None if all of them are nan."""
    measured = values[~np.isnan(values)]
    if not measured.size:
        return None
    low, high = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _matches(evaluation: Any, dataset: Dataset, class_position: int, area: int) -> Matches:
    """From the per-photo results of a :class:`COCOeval`."""
    parameters = evaluation.params
    photos, areas = len(parameters.imgIds), len(parameters.areaRng)
    first = (class_position * areas + area) * photos
    entries = [e for e in evaluation.evalImgs[first : first + photos] if e is not None]
    position = {sample.image_id: i for i, sample in enumerate(dataset.samples)}
    limit = parameters.maxDets[-1]
    thresholds = len(parameters.iouThrs)

    annotated = np.zeros(len(dataset), dtype=np.int64)
    photo, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
    matched = [np.zeros((thresholds, 0), np.bool_)]
    ignored = [np.zeros((thresholds, 0), np.bool_)]
    for entry in entries:
        place = position[entry["image_id"]]
        annotated[place] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        of_photo = np.asarray(entry["dtScores"][:limit], dtype=np.float64)
        scores.append(of_photo)
        photo.append(np.full(len(of_photo), place))
        matched.append(np.asarray(entry["dtMatches"])[:, :limit] != 0)
        ignored.append(np.asarray(entry["dtIgnore"])[:, :limit] != 0)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    is_match = np.concatenate(matched, axis=1)[:, order]
    counts = ~np.concatenate(ignored, axis=1)[:, order]
    return Matches(np.concatenate(photo)[order], is_match & counts, ~is_match & counts, annotated)


def _average_precision(
    photo: IntArray,
    right: npt.NDArray[np.bool_],
    wrong: npt.NDArray[np.bool_],
    annotated: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """At one threshold of IoU: shape (R,).

    Interpolated precision only changes where a right detection comes, so these are the only
    points of the curve that are computed. How many right and wrong ones come up to such a point
    is a sum over photos, each counted as often as it was drawn: a product of matrices.
    """
    points = np.flatnonzero(right)
    unmeasured = np.isnan(annotated)
    if not points.size:
        return np.where(unmeasured, np.nan, 0.0)
    right_before = np.zeros((weights.shape[1], points.size))
    right_before[photo[points], np.arange(points.size)] = 1
    wrong_before = np.zeros((weights.shape[1], points.size + 1))
    mistakes = np.flatnonzero(wrong)
    np.add.at(wrong_before, (photo[mistakes], np.searchsorted(points, mistakes)), 1)
    right_before = right_before.cumsum(axis=1)
    wrong_before = wrong_before[:, :-1].cumsum(axis=1)

    result = np.empty(len(weights))
    step = max(_CHUNK // points.size, 1)
    for start in range(0, len(weights), step):
        chunk = slice(start, start + step)
        true, false = weights[chunk] @ right_before, weights[chunk] @ wrong_before
        precision = true / (true + false + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # nan sorts last; such rows are overwritten below.
        recalls_reached = np.searchsorted(_RECALLS, true / annotated[chunk, None], side="right")
        newly_reached = np.diff(recalls_reached, axis=1, prepend=0)
        result[chunk] = (envelope * newly_reached).sum(axis=1) / len(_RECALLS)
    result[unmeasured] = np.nan
    return result


def _mean_of_measured(values: FloatArray) -> FloatArray:
    """Mean over the first axis without nan; nan where nothing else is there."""
    measured = ~np.isnan(values)
    count = measured.sum(axis=0)
    total = np.where(measured, values, 0).sum(axis=0)
    mean: FloatArray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
