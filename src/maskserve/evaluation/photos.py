"""How well each photo was understood: which to look at first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from maskserve.core.masks import Mask, MaskCrop, crop_from_rle, union
from maskserve.core.types import Instances, percent
from maskserve.datasets.types import Dataset, Sample
from maskserve.evaluation.matching import NONE, compare_photo, match

__all__ = ["PhotoResult", "coverage_error", "judge_photos"]


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """What a model makes of a photo at a threshold.

    Attributes:
        photo: Index in the data set.
        name: Of the file.
        quality: Panoptic quality, 0..1 (Kirillov et al., 1801.00868): the sum of the IoUs of
            right instances over the number of instances, of which a missed or a false one
            counts half. 1 if nothing is annotated and nothing was found.
        annotated: Instances, without crowds.
        right: Found, with a mask of IoU 0.5 or more.
        false: Found, but not right.
        annotated_percent: How much of the photo the annotations cover; overlaps count once,
            and pixels of crowds count neither here nor below.
        found_percent: How much of it the found instances cover.
    """

    photo: int
    name: str
    quality: float
    annotated: int
    right: int
    false: int
    annotated_percent: float
    found_percent: float


def judge_photos(
    dataset: Dataset, predictions: Sequence[Instances], *, min_score: float
) -> tuple[PhotoResult, ...]:
    """One result a photo, in the order of the data set.

    Args:
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order.
        min_score: Weaker instances do not count.
    """
    results = []
    for number, (sample, instances) in enumerate(zip(dataset.samples, predictions, strict=True)):
        overlaps = compare_photo(sample, instances, dataset.categories)
        matching = match(overlaps, iou=0.5, min_score=min_score)
        right = np.flatnonzero(matching.annotation_of != NONE)
        annotated = int(np.sum(~overlaps.is_crowd))
        false = int(np.sum(matching.counts)) - len(right)
        fit = float(np.sum(overlaps.mask_iou[right, matching.annotation_of[right]]))
        total = len(right) + (false + annotated - len(right)) / 2
        asked = ~union(_annotated_crops(sample, is_crowd=True), sample.image_size)
        known = (overlaps.found_classes != NONE) & (instances.scores >= min_score)
        results.append(
            PhotoResult(
                photo=number,
                name=sample.image_path.name,
                quality=fit / total if total else 1.0,
                annotated=annotated,
                right=len(right),
                false=false,
                annotated_percent=_covered_percent(_annotated_crops(sample, is_crowd=False), asked),
                found_percent=_covered_percent(instances.select(known).crops, asked),
            )
        )
    return tuple(results)


def coverage_error(results: Sequence[PhotoResult]) -> float:
    """Mean difference of annotated and found coverage in percentage points; 0 of no photos."""
    differences = [abs(result.found_percent - result.annotated_percent) for result in results]
    return sum(differences) / max(len(differences), 1)


def _annotated_crops(sample: Sample, *, is_crowd: bool) -> list[MaskCrop]:
    return [
        crop_from_rle(annotation.to_rle(sample.image_size))
        for annotation in sample.annotations
        if annotation.is_crowd is is_crowd
    ]


def _covered_percent(crops: Iterable[MaskCrop], asked: Mask) -> float:
    covered = union(crops, asked.shape) & asked
    return percent(int(np.count_nonzero(covered)), asked.size)
