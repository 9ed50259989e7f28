"""What is in a split, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskserve.datasets.types import Dataset

__all__ = ["SplitSummary", "Spread", "summarise_split"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the median and the largest of some numbers; zeros if there are none."""

    least: float
    median: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls(0, 0, 0)
        return cls(min(values), float(np.median(values)), max(values))


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What is in one split.

    Attributes:
        name: None for a data set that is not divided.
        photos: Photos in all.
        empty_photos: Photos in which nothing is annotated.
        instances: Instances in all, without crowd regions.
        crowds: Regions with many instances that nobody told apart.
        per_class: Instances of each class.
        instances_per_photo: Over all photos.
        width_px: Of the upright photos.
        height_px: Of the upright photos.
        instance_px: Square root of the instances' areas.
    """

    name: str | None
    photos: int
    empty_photos: int
    instances: int
    crowds: int
    per_class: dict[str, int]
    instances_per_photo: Spread
    width_px: Spread
    height_px: Spread
    instance_px: Spread


def summarise_split(name: str | None, dataset: Dataset) -> SplitSummary:
    """Count what is in a data set, which is the split ``name`` of a larger one."""
    names = dataset.categories.names
    per_class = dict.fromkeys(names, 0)
    counts: list[int] = []
    sides: list[float] = []
    for sample in dataset.samples:
        instances = [a for a in sample.annotations if not a.is_crowd]
        counts.append(len(instances))
        for annotation in instances:
            per_class[names[annotation.class_index]] += 1
            sides.append(annotation.area_px(sample.image_size) ** 0.5)
    return SplitSummary(
        name=name,
        photos=len(dataset),
        empty_photos=sum(not sample.annotations for sample in dataset.samples),
        instances=sum(counts),
        crowds=sum(len(sample.annotations) for sample in dataset.samples) - sum(counts),
        per_class=per_class,
        instances_per_photo=Spread.of(counts),
        width_px=Spread.of([sample.image_size[1] for sample in dataset.samples]),
        height_px=Spread.of([sample.image_size[0] for sample in dataset.samples]),
        instance_px=Spread.of(sides),
    )
