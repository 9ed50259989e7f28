"""What kinds of mistake a model makes, and what each of them costs.

After Bolya et al., “TIDE: A General Toolbox for Identifying Object Detection Errors”
(2008.08115), with one kind more: a box that fits around a mask that does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset
from maskserve.evaluation.curves import interpolate_precision
from maskserve.evaluation.matching import NONE, Matching, Overlaps, compare_photo, match

__all__ = ["ERROR_KINDS", "ErrorAnalysis", "ErrorKind", "Mistake", "analyse_errors"]

ErrorKind = Literal["missed", "false", "duplicate", "location", "mask", "class"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
"""A wrong instance is of the first kind that fits, an annotation that nobody found is missed:

* ``class``: its mask fits an annotation of another class that is still free;
* ``duplicate``: its mask fits an annotation that a better-scored one has taken;
* ``mask``: its box fits an annotation of its class, but its mask does not;
* ``location``: its box overlaps one of its class, but by less;
* ``false``: there is nothing of its class at its place;
* ``missed``: no instance was found for it, nor one of the kinds ``class``, ``mask`` and
  ``location``.
"""

_FITS = 0.5
_OVERLAPS = 0.1


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that went wrong.

    Attributes:
        kind: See :data:`ERROR_KINDS`.
        photo: Index of the photo in the data set.
        instance: Index of the found instance in the predictions of the photo; NONE if missed.
        annotation: Index of the annotation that was meant or missed; NONE if there is none.
    """

    kind: ErrorKind
    photo: int
    instance: int
    annotation: int


@dataclass(frozen=True, slots=True, eq=False)
class ErrorAnalysis:
    """What went wrong at a threshold, and what it costs over all thresholds.

    Attributes:
        min_score: The threshold.
        mistakes: At this threshold: first what was found, best score first in each photo, then
            what was missed.
        confusion: int64, shape (C + 1, C + 1): annotated class by found class, at this
            threshold; the last row is what was found where nothing is annotated, the last
            column what was annotated and not found.
        ap50: Mask AP at IoU 0.5 over all scores, 0..100; 0 if nothing is annotated.
        ap50_without: What that would be if all mistakes of one kind were put right and nothing
            else: a wrong class, place or mask corrected, what is false or double removed, and
            what was missed not asked for.
    """

    min_score: float
    mistakes: tuple[Mistake, ...]
    confusion: npt.NDArray[np.int64]
    ap50: float
    ap50_without: Mapping[ErrorKind, float]

    def count(self, kind: ErrorKind) -> int:
        """Mistakes of a kind at the threshold."""
        return sum(mistake.kind == kind for mistake in self.mistakes)


def analyse_errors(
    dataset: Dataset, predictions: Sequence[Instances], *, min_score: float
) -> ErrorAnalysis:
    """Sort everything that went wrong.

    Args:
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order, made with a low threshold.
        min_score: The threshold of everyday use.
    """
    photos = [
        compare_photo(sample, instances, dataset.categories)
        for sample, instances in zip(dataset.samples, predictions, strict=True)
    ]
    at_threshold = [match(photo, iou=_FITS, min_score=min_score) for photo in photos]
    mistakes = _find_mistakes(photos, at_threshold)
    at_any_score = [match(photo, iou=_FITS) for photo in photos]
    all_mistakes = _find_mistakes(photos, at_any_score)
    return ErrorAnalysis(
        min_score=min_score,
        mistakes=tuple(mistakes),
        confusion=_confusion(photos, at_threshold, mistakes, len(dataset.categories)),
        ap50=_ap50(photos, at_any_score, ()),
        ap50_without={
            kind: _ap50(photos, at_any_score, [m for m in all_mistakes if m.kind == kind])
            for kind in ERROR_KINDS
        },
    )


def _find_mistakes(photos: Sequence[Overlaps], matchings: Sequence[Matching]) -> list[Mistake]:
    wrong: list[Mistake] = []
    missed: list[Mistake] = []
    for number, (photo, matching) in enumerate(zip(photos, matchings, strict=True)):
        taken = np.zeros(len(photo.classes), dtype=np.bool_)
        taken[matching.annotation_of[matching.annotation_of != NONE]] = True
        nearly_found = taken.copy()
        for i in np.flatnonzero(matching.counts & (matching.annotation_of == NONE)):
            kind, annotation = _judge(photo, int(i), taken)
            wrong.append(Mistake(kind, number, int(i), annotation))
            if kind in ("class", "mask", "location"):
                nearly_found[annotation] = True
        missed += [
            Mistake("missed", number, NONE, int(k))
            for k in np.flatnonzero(~nearly_found & ~photo.is_crowd)
        ]
    return wrong + missed


def _judge(photo: Overlaps, i: int, taken: npt.NDArray[np.bool_]) -> tuple[ErrorKind, int]:
    """Kind of a wrong instance, and the annotation that it was meant for."""
    of_class = (photo.classes == photo.found_classes[i]) & ~photo.is_crowd
    of_other = (photo.classes != photo.found_classes[i]) & ~photo.is_crowd & ~taken
    mask_iou, box_iou = photo.mask_iou[i], photo.box_iou[i]
    questions: tuple[tuple[ErrorKind, npt.NDArray[np.bool_], npt.NDArray[np.float64]], ...] = (
        ("class", of_other & (mask_iou >= _FITS), mask_iou),
        # Had it been free, the instance would have taken it.
        ("duplicate", of_class & (mask_iou >= _FITS), mask_iou),
        ("mask", of_class & (box_iou >= _FITS), box_iou),
        ("location", of_class & (box_iou >= _OVERLAPS), box_iou),
    )
    for kind, candidates, overlap in questions:
        if candidates.any():
            return kind, int(np.argmax(np.where(candidates, overlap, -1.0)))
    return "false", NONE


def _confusion(
    photos: Sequence[Overlaps],
    matchings: Sequence[Matching],
    mistakes: Sequence[Mistake],
    class_count: int,
) -> npt.NDArray[np.int64]:
    background = class_count
    confusion = np.zeros((class_count + 1, class_count + 1), dtype=np.int64)
    unseen = [~photo.is_crowd for photo in photos]
    for photo, matching, left in zip(photos, matchings, unseen, strict=True):
        right = matching.annotation_of[matching.annotation_of != NONE]
        np.add.at(confusion, (photo.classes[right], photo.classes[right]), 1)
        left[right] = False
    for mistake in mistakes:
        if mistake.kind == "missed":
            continue
        photo, left = photos[mistake.photo], unseen[mistake.photo]
        found = photo.found_classes[mistake.instance]
        if mistake.kind == "class" and left[mistake.annotation]:
            confusion[photo.classes[mistake.annotation], found] += 1
            left[mistake.annotation] = False
        else:
            confusion[background, found] += 1
    for photo, left in zip(photos, unseen, strict=True):
        confusion[:, background] += np.bincount(photo.classes[left], minlength=class_count + 1)
    return confusion


def _ap50(
    photos: Sequence[Overlaps], matchings: Sequence[Matching], repaired: Sequence[Mistake]
) -> float:
    """Mask AP at IoU 0.5, 0..100, after some mistakes were put right."""
    found_classes = [photo.found_classes.copy() for photo in photos]
    counts = [matching.counts.copy() for matching in matchings]
    right = [matching.annotation_of != NONE for matching in matchings]
    asked = [~photo.is_crowd for photo in photos]
    taken = [np.zeros(len(photo.classes), dtype=np.bool_) for photo in photos]
    for matching, of_photo in zip(matchings, taken, strict=True):
        of_photo[matching.annotation_of[matching.annotation_of != NONE]] = True
    for mistake in repaired:  # of those meant for the same annotation, the best comes first
        p, i, k = mistake.photo, mistake.instance, mistake.annotation
        if mistake.kind == "missed":
            asked[p][k] = False
        elif mistake.kind in ("false", "duplicate") or taken[p][k]:
            counts[p][i] = False
        else:
            found_classes[p][i] = photos[p].classes[k]
            right[p][i] = taken[p][k] = True

    all_scores = np.concatenate([np.zeros(0), *(photo.scores for photo in photos)])
    all_counts = np.concatenate([np.zeros(0, dtype=np.bool_), *counts])
    all_right = np.concatenate([np.zeros(0, dtype=np.bool_), *right])
    all_found = np.concatenate([np.zeros(0, dtype=np.int64), *found_classes])
    to_find = np.concatenate(
        [np.zeros(0, dtype=np.int64)]
        + [photo.classes[of_photo] for photo, of_photo in zip(photos, asked, strict=True)]
    )
    precisions = [
        interpolate_precision(
            all_scores[shown := all_counts & (all_found == class_index)],
            all_right[shown],
            annotated=int(np.sum(to_find == class_index)),
        ).mean()
        for class_index in np.unique(to_find)
    ]
    return 100 * float(np.mean(precisions)) if precisions else 0.0
