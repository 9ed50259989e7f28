"""The photos of a run: what it learns from, and what it is measured on."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskserve.core.errors import DatasetError, TrainingError
from maskserve.datasets import (
    Dataset,
    Sample,
    available_splits,
    fold_dataset,
    load_dataset,
    split_dataset,
)
from maskserve.reporting.wording import quantity
from maskserve.training.config import TrainSettings
from maskserve.training.data import Backgrounds, TrainingExamples, divide_backgrounds
from maskserve.training.processes import is_first
from maskserve.training.record import RunRecord

__all__ = [
    "Photos",
    "compare_photos",
    "describe_dataset",
    "fullest_photo",
    "load_photos",
    "load_splits",
    "photo_names",
]


@dataclass(frozen=True, slots=True)
class Photos:
    """What a run learns from and is measured on.

    Attributes:
        train: Annotated photos that it learns from.
        val: Annotated photos that it is measured on.
        extra: Other annotated photos that it learns from, such as rendered scenes.
        backgrounds: Photos that show none of the classes, divided for either.
    """

    train: Dataset
    val: Dataset
    extra: Dataset | None
    backgrounds: Backgrounds

    def examples(self, settings: TrainSettings) -> TrainingExamples:
        """What the network sees of them while it learns."""
        return TrainingExamples(
            self.train, settings, backgrounds=self.backgrounds.train, extra=self.extra
        )


def load_photos(settings: TrainSettings, data: Path) -> Photos:
    """Read all annotations of a run, and find its photos.

    Raises:
        DatasetError: The data cannot be used.
    """
    train_set, val_set = load_splits(settings, data)
    extra = _load_extra(settings, train_set)
    backgrounds = Backgrounds()
    if settings.backgrounds is not None:
        backgrounds = divide_backgrounds(settings.backgrounds, seed=settings.holds_out_by)
    return Photos(train_set, val_set, extra, backgrounds)


def load_splits(settings: TrainSettings, data: Path) -> tuple[Dataset, Dataset]:
    """The annotated photos of a data set to learn from, and those to be measured on.

    Raises:
        DatasetError: The data cannot be used.
    """
    load = partial(
        load_dataset,
        data,
        format=settings.data_format,
        class_name=settings.class_name,
        class_attribute=settings.class_attribute,
    )
    splits = available_splits(data, format=settings.data_format)
    only_split = splits[0] if len(splits) == 1 else None
    train_set = load(split=only_split or ("train" if splits else None))
    if settings.val_split is not None:
        return train_set, load(split=settings.val_split)
    if settings.is_cross_validated:  # measured on what it learns from, but by other models
        return train_set, train_set
    seed = settings.holds_out_by
    if settings.folds is not None and settings.fold is not None:
        divided = fold_dataset(train_set, folds=settings.folds, fold=settings.fold, seed=seed)
    else:
        divided = split_dataset(train_set, fraction=settings.val_fraction, seed=seed)
    return (train_set, divided[1]) if settings.refit else divided


def _load_extra(settings: TrainSettings, dataset: Dataset) -> Dataset | None:
    if settings.extra is None:
        return None
    extra = load_dataset(
        Path(settings.extra.folder),
        split=settings.extra.split,
        class_name=settings.class_name or dataset.categories.names[0],
    )
    if extra.categories.names != dataset.categories.names:
        raise DatasetError(
            f"{settings.extra.folder} has the classes {', '.join(extra.categories.names)}, but "
            f"the training photos have {', '.join(dataset.categories.names)}."
        )
    return extra


def compare_photos(record: RunRecord, photos: Photos, data: Path) -> None:
    """Make sure that all processes see the same photos; machines may differ.

    Raises:
        TrainingError: This one has other photos than the first.
    """
    names = (photo_names(photos.train), photo_names(photos.val))
    if not is_first() and names != (record.train_photos, record.val_photos):
        raise TrainingError(
            f"On {platform.node()}, {data} holds other photos than on the first machine.",
            hint="Give every machine the same data set.",
        )


def photo_names(dataset: Dataset) -> tuple[str, ...]:
    """File names of its photos, in order."""
    return tuple(sample.image_path.name for sample in dataset.samples)


def fullest_photo(dataset: Dataset) -> Sample:
    """The photo with most instances."""
    return max(dataset.samples, key=lambda sample: len(sample.annotations))


def describe_dataset(dataset: Dataset) -> str:
    """Its name and how much it holds, in words."""
    instances = sum(len(sample.annotations) for sample in dataset.samples)
    return f"{dataset.name}: {quantity(len(dataset), 'photo')}, {quantity(instances, 'instance')}"
