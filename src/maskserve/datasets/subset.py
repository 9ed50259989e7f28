"""A data set of only some of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError
from maskserve.datasets.types import Annotation, Dataset, Sample

__all__ = ["select_classes"]


def select_classes(
    dataset: Dataset, names: Sequence[str], *, keep_empty: int | None = 0
) -> Dataset:
    """Keep some classes, with their COCO ids, and the photos in which there is any of them.

    Crowd regions of these classes are kept, and so is a photo with nothing but such a region: it
    does show the class.

    Args:
        dataset: Any data set.
        names: Of the classes to keep; their order is that of ``dataset``.
        keep_empty: How many of the photos to keep in which there is none of the classes; None
            for all of them. Which ones depends on their file names alone.

    Returns:
        At least one photo, in the order of ``dataset``.

    Raises:
        UnknownClassError: ``dataset`` has no such class.
        DatasetError: Not one photo is left.
    """
    kept = sorted({dataset.categories.index_of(name) for name in names})
    new_index = {old: new for new, old in enumerate(kept)}

    def select(annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
        return tuple(
            replace(annotation, class_index=new_index[annotation.class_index])
            for annotation in annotations
            if annotation.class_index in new_index
        )

    samples = [replace(s, annotations=select(s.annotations)) for s in dataset.samples]
    empty = sorted((s for s in samples if not s.annotations), key=_chance)[:keep_empty]
    negatives = {sample.image_id for sample in empty}
    samples = [s for s in samples if s.annotations or s.image_id in negatives]
    if not samples:
        raise DatasetError(
            f"The data set “{dataset.name}” has no photo with {' or '.join(names)}.",
            hint="Choose another split, or keep photos without these classes.",
        )
    categories = Categories(
        tuple(dataset.categories.names[index] for index in kept),
        tuple(dataset.categories.id_of(index) for index in kept),
    )
    return replace(dataset, categories=categories, samples=tuple(samples))


def _chance(sample: Sample) -> str:
    return sha256(sample.image_path.name.encode()).hexdigest()
