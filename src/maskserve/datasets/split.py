"""Dividing a data set into a part to learn from and parts to choose by and to test with."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import pairwise

from maskserve.core.errors import DatasetError, ParameterError
from maskserve.datasets.types import Dataset, Sample

__all__ = ["divide_dataset", "fold_dataset", "split_dataset"]


def split_dataset(dataset: Dataset, *, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Divide a data set by photo, so that both parts have crowded and sparse photos.

    The photos are ordered by their number of instances and cut into as many groups as the
    second part gets photos; it gets one of each group. Which one depends on the seed and the
    photos' file names alone: not on their order, nor on the version of any library.

    Args:
        dataset: At least two photos.
        fraction: Share of the photos that the second part gets, between 0 and 1; at least one
            photo goes to either part.
        seed: Another seed gives another division.

    Returns:
        The part to train with and the part to validate with, each in the order of ``dataset``.

    Raises:
        ParameterError: ``fraction`` is not between 0 and 1.
        DatasetError: There are fewer than two photos.
    """
    if not 0 < fraction < 1:
        raise ParameterError(f"The fraction must lie between 0 and 1, not at {fraction:g}.")
    total = len(dataset)
    if total < 2:
        raise DatasetError(
            f"The data set “{dataset.name}” has {total} photo, which cannot be divided.",
            hint="Annotate more photos, or name a validation set.",
        )
    chance = partial(_chance, seed=seed)
    ordered = _by_count(dataset, seed)
    count = min(max(round(total * fraction), 1), total - 1)
    bounds = [i * total // count for i in range(count + 1)]
    chosen = {min(ordered[start:end], key=chance).image_id for start, end in pairwise(bounds)}
    return _part(dataset, chosen)


def fold_dataset(dataset: Dataset, *, folds: int, fold: int, seed: int) -> tuple[Dataset, Dataset]:
    """One of the divisions of a cross-validation: each photo is in the second part of one of them.

    The photos are ordered by their number of instances, and of every ``folds`` that follow each
    other one goes to each fold, so that all have crowded and sparse photos. Depends on the seed and
    the photos' file names alone.

    Args:
        dataset: At least as many photos as folds.
        folds: How many, 2 or more.
        fold: Which one, from 1.
        seed: Another seed gives other folds.

    Returns:
        The part to train with and the part to validate with, each in the order of ``dataset``.

    Raises:
        DatasetError: There are fewer photos than folds.
    """
    if len(dataset) < folds:
        raise DatasetError(
            f"The data set “{dataset.name}” has {len(dataset)} photos, too few for {folds} folds.",
            hint="Annotate more photos, or ask for fewer folds.",
        )
    ordered = _by_count(dataset, seed)
    chosen = set()
    for group in range(0, len(ordered), folds):
        dealt = sorted(ordered[group : group + folds], key=partial(_chance, seed=seed))
        chosen |= {sample.image_id for sample in dealt[fold - 1 : fold]}
    return _part(dataset, chosen)


def _chance(sample: Sample, *, seed: int) -> str:
    return sha256(f"{seed}/{sample.image_path.name}".encode()).hexdigest()


def _by_count(dataset: Dataset, seed: int) -> list[Sample]:
    """From sparse to crowded photos."""
    return sorted(dataset.samples, key=lambda s: (len(s.annotations), _chance(s, seed=seed)))


def _part(dataset: Dataset, chosen: Set[int]) -> tuple[Dataset, Dataset]:
    """The data set without the photos of these ids, and these."""
    first = tuple(sample for sample in dataset.samples if sample.image_id not in chosen)
    second = tuple(sample for sample in dataset.samples if sample.image_id in chosen)
    return (
        replace(dataset, name=f"{dataset.name} (training part)", samples=first),
        replace(dataset, name=f"{dataset.name} (validation part)", samples=second),
    )


def divide_dataset(
    dataset: Dataset, *, shares: Mapping[str, float], seed: int
) -> dict[str | None, Dataset]:
    """Divide a data set by photo into ``train`` and other splits, each as :func:`split_dataset`.

    The first of ``shares`` gets the very photos that ``split_dataset`` takes out with that
    fraction and seed, and so does not depend on the others.

    Args:
        dataset: At least one photo more than there are ``shares``.
        shares: Of all photos, by the names of the splits, such as ``{"val": 0.2}``.
        seed: Another seed gives another division.

    Returns:
        First ``train``, then the splits of ``shares``, as ``write_dataset`` takes them.

    Raises:
        ParameterError: A share is not above 0, or nothing is left for ``train``.
        DatasetError: There are too few photos.
    """
    if min(shares.values(), default=0) <= 0 or not sum(shares.values()) < 1:
        given = " and ".join(f"{share:g} for {name}" for name, share in shares.items())
        raise ParameterError(
            f"Shares of {given or 'nothing'} leave no photo on one side.",
            hint="Each must be above 0, and together they must stay below 1.",
        )
    rest = dataset
    parts: dict[str | None, Dataset] = {}
    left = 1.0
    for name, share in shares.items():
        rest, part = split_dataset(rest, fraction=share / left, seed=seed)
        parts[name] = replace(part, name=dataset.name)
        left -= share
    return {"train": replace(rest, name=dataset.name), **parts}
