from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, ParameterError
from maskserve.datasets import (
    Annotation,
    Dataset,
    Sample,
    divide_dataset,
    fold_dataset,
    split_dataset,
)


def make_dataset(counts: list[int]) -> Dataset:
    """A data set with so many instances in its photos."""
    square = np.array([[1, 1], [5, 1], [5, 5], [1, 5]], dtype=np.float64)
    samples = tuple(
        Sample(Path(f"photo_{i}.jpg"), i + 1, (10, 10), (Annotation(0, (square,)),) * count)
        for i, count in enumerate(counts)
    )
    return Dataset("toys", Categories.from_names(["toy"]), samples)


def names(dataset: Dataset) -> list[str]:
    return [sample.image_path.name for sample in dataset.samples]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 1000),
)
def test_every_photo_goes_to_exactly_one_part(
    counts: list[int], fraction: float, seed: int
) -> None:
    dataset = make_dataset(counts)
    first, second = split_dataset(dataset, fraction=fraction, seed=seed)
    assert sorted(names(first) + names(second)) == sorted(names(dataset))
    assert len(second) == min(max(round(len(counts) * fraction), 1), len(counts) - 1)
    assert first.categories == second.categories == dataset.categories


@settings(deadline=None)
@given(st.permutations(range(12)))
def test_order_of_the_photos_does_not_matter(order: list[int]) -> None:
    dataset = make_dataset([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
    shuffled = replace(dataset, samples=tuple(dataset.samples[i] for i in order))
    expected = split_dataset(dataset, fraction=0.3, seed=1)
    for part, same in zip(split_dataset(shuffled, fraction=0.3, seed=1), expected, strict=True):
        assert set(names(part)) == set(names(same))


def test_seed_decides() -> None:
    dataset = make_dataset([1] * 20)
    parts = {tuple(names(split_dataset(dataset, fraction=0.2, seed=s)[1])) for s in range(10)}
    assert len(parts) > 5


@pytest.mark.parametrize("seed", range(5))
def test_both_parts_have_crowded_and_sparse_photos(seed: int) -> None:
    _, second = split_dataset(make_dataset([1] * 20 + [30] * 20), fraction=0.2, seed=seed)
    assert sorted(len(sample.annotations) for sample in second.samples) == [1] * 4 + [30] * 4


def test_one_photo_cannot_be_divided() -> None:
    with pytest.raises(DatasetError, match="has 1 photo"):
        split_dataset(make_dataset([1]), fraction=0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_fraction_must_leave_something_on_both_sides(fraction: float) -> None:
    with pytest.raises(ParameterError, match="between 0 and 1"):
        split_dataset(make_dataset([1, 1]), fraction=fraction, seed=0)


shares = st.floats(0.05, 0.45)


@given(st.lists(st.integers(0, 9), min_size=6, max_size=60), shares, shares, st.integers(0, 99))
def test_division_is_a_partition_by_the_shares(
    counts: list[int], val: float, test: float, seed: int
) -> None:
    dataset = make_dataset(counts)
    parts = divide_dataset(dataset, shares={"val": val, "test": test}, seed=seed)
    assert list(parts) == ["train", "val", "test"]
    assert sorted(name for part in parts.values() for name in names(part)) == sorted(names(dataset))
    for name, share in (("val", val), ("test", test), ("train", 1 - val - test)):
        assert abs(len(parts[name]) - share * len(dataset)) <= 1.5
        assert len(parts[name]) >= 1


def test_first_share_gets_what_training_would_hold_out() -> None:
    dataset = make_dataset([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
    parts = divide_dataset(dataset, shares={"val": 0.25, "test": 0.25}, seed=4)
    _, held_out = split_dataset(dataset, fraction=0.25, seed=4)
    assert names(parts["val"]) == names(held_out)


@pytest.mark.parametrize("seed", range(3))
def test_all_splits_have_crowded_and_sparse_photos(seed: int) -> None:
    dataset = make_dataset([1] * 20 + [30] * 20)
    parts = divide_dataset(dataset, shares={"val": 0.2, "test": 0.2}, seed=seed)
    for part in parts.values():
        crowded = sum(len(sample.annotations) == 30 for sample in part.samples)
        assert abs(crowded - len(part) / 2) <= 1


def test_drawn_photos_stay_the_same() -> None:
    _, held_out = split_dataset(make_dataset(list(range(20))), fraction=0.15, seed=0)
    assert names(held_out) == ["photo_0.jpg", "photo_8.jpg", "photo_18.jpg"]


@pytest.mark.parametrize("wrong", [{}, {"val": 0.0}, {"val": 0.6, "test": 0.4}, {"val": -0.1}])
def test_shares_must_leave_something_on_all_sides(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="leave no photo on one side"):
        divide_dataset(make_dataset([1] * 9), shares=wrong, seed=0)


@given(photos=st.integers(2, 40), folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_folds_share_all_photos_out(photos: int, folds: int, seed: int) -> None:
    assume(photos >= folds)
    dataset = make_dataset([n % 7 for n in range(photos)])
    parts = [
        fold_dataset(dataset, folds=folds, fold=fold, seed=seed) for fold in range(1, folds + 1)
    ]
    held_out = [sample.image_id for _, part in parts for sample in part.samples]
    assert sorted(held_out) == sorted(sample.image_id for sample in dataset.samples)
    for rest, part in parts:
        assert photos // folds <= len(part) <= photos // folds + 1
        assert len(rest) + len(part) == photos


def test_crowded_photos_are_in_every_fold() -> None:
    dataset = make_dataset([0] * 6 + [50] * 3)
    for fold in (1, 2, 3):
        _, part = fold_dataset(dataset, folds=3, fold=fold, seed=4)
        assert sorted(len(sample.annotations) for sample in part.samples) == [0, 0, 50]


def test_too_few_photos_for_the_folds() -> None:
    with pytest.raises(DatasetError, match="2 photos, too few for 3 folds"):
        fold_dataset(make_dataset([1, 1]), folds=3, fold=1, seed=0)
