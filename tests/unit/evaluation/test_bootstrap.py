from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskserve.core import Instances
from maskserve.datasets import Dataset
from maskserve.evaluation.bootstrap import (
    RESAMPLED_NAMES,
    Matches,
    average_precisions,
    draw_resamples,
    percentile_interval,
    resample_metrics,
)
from maskserve.evaluation.coco import Kind, measure

KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES = (8, 20, 40, 100)  # small to large in COCO's sense


@pytest.fixture
def toys(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> tuple[Dataset, list[Instances]]:
    """Seven photos with rectangles of all sizes and a crowd, and a model that errs in all ways."""
    rng = np.random.default_rng(3)
    photos: list[list[tuple[str, tuple[int, int, int, int]]]] = []
    predictions = []
    for _ in range(7):
        annotated = []
        found: list[Any] = []
        for _ in range(rng.integers(0, 5)):
            name = str(rng.choice(["ball", "box"]))
            side = int(rng.choice(SIZES))
            x, y = rng.integers(0, 120 - side), rng.integers(0, 101 - side)
            annotated.append((name, (int(x), int(y), int(x + side), int(y + side))))
        for name, (x0, y0, x1, y1) in annotated:
            if rng.random() < 0.8:
                shift = int(rng.integers(0, 3))
                # Scores that are the same in several photos.
                score = round(float(rng.uniform(0.3, 1)), 1) + 0.001 * len(found)
                found.append((name, (max(x0 - shift, 0), y0, x1 - shift, y1), score))
        for _ in range(rng.integers(0, 4)):
            x, y = rng.integers(0, 60, 2)
            score = round(float(rng.uniform(0.1, 0.9)), 1) + 0.001 * len(found)
            found.append(("ball", (int(x), int(y), int(x) + 30, int(y) + 30), score))
        photos.append(annotated)
        predictions.append(make_instances(*found))
    dataset = make_dataset(*photos, crowds=[(0, 70, 30, 100)])
    # Ids against the order of the photos, since COCOeval sorts by them.
    samples = tuple(
        replace(sample, image_id=100 - sample.image_id) for sample in reversed(dataset.samples)
    )
    return replace(dataset, samples=samples), predictions[::-1]


def repeat_photos(
    dataset: Dataset, predictions: list[Instances], times: list[int]
) -> tuple[Dataset, list[Instances]]:
    """A data set in which each photo stands as often as it was drawn, under ids of its own."""
    samples, repeated = [], []
    for sample, instances, count in zip(dataset.samples, predictions, times, strict=True):
        for copy in range(count):
            samples.append(replace(sample, image_id=100 * sample.image_id + copy))
            repeated.append(instances)
    return replace(dataset, samples=tuple(samples)), repeated


@pytest.mark.parametrize("kind", KINDS)
def test_each_photo_once_gives_the_metrics_themselves(
    toys: tuple[Dataset, list[Instances]], kind: Kind
) -> None:
    dataset, predictions = toys
    once = np.ones((1, len(dataset)), dtype=np.int64)
    values = resample_metrics(kind, dataset, predictions, resamples=once)
    expected = getattr(measure(dataset, predictions), kind)
    assert set(values) == set(RESAMPLED_NAMES)
    for name in RESAMPLED_NAMES:
        assert values[name][0] == pytest.approx(expected[name], abs=1e-6)  # rounded to that
        assert 0 < expected[name] < 100


@pytest.mark.parametrize("kind", KINDS)
def test_resamples_are_what_pycocotools_finds_in_repeated_photos(
    toys: tuple[Dataset, list[Instances]], kind: Kind
) -> None:
    dataset, predictions = toys
    resamples = draw_resamples(len(dataset), count=12, seed=1)
    values = resample_metrics(kind, dataset, predictions, resamples=resamples)
    for number, times in enumerate(resamples.tolist()):
        repeated = repeat_photos(dataset, predictions, times)
        metrics = measure(*repeated)
        for name in RESAMPLED_NAMES:
            expected = getattr(metrics, kind)[name]
            assert values[name][number] == pytest.approx(
                np.nan if expected is None else expected, abs=6e-7, nan_ok=True
            )


def test_a_size_that_no_drawn_photo_has_is_not_measured(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", (0, 0, 8, 8))], [("ball", (0, 0, 60, 60))])
    predictions = [
        make_instances(("ball", (0, 0, 8, 8), 0.9)),
        make_instances(("ball", (0, 0, 60, 60), 0.8)),
    ]
    resamples = np.array([[2, 0], [0, 2], [1, 1]])
    values = resample_metrics("segm", dataset, predictions, resamples=resamples)
    np.testing.assert_allclose(values["APs"], [100, np.nan, 100])
    np.testing.assert_allclose(values["APm"], [np.nan, 100, 100])
    np.testing.assert_array_equal(values["APl"], [np.nan] * 3)
    np.testing.assert_allclose(values["AP"], 100)


def test_nothing_found_is_zero(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", (0, 0, 60, 60))])
    values = resample_metrics("bbox", dataset, [make_instances()], resamples=np.array([[1]]))
    assert values["AP"].tolist() == values["AP50"].tolist() == [0]


@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 2**32))
def test_resamples_have_as_many_photos_as_the_data_set_and_follow_the_seed(
    photos: int, count: int, seed: int
) -> None:
    resamples = draw_resamples(photos, count=count, seed=seed)
    assert resamples.shape == (count, photos)
    assert (resamples.sum(axis=1) == photos).all()
    np.testing.assert_array_equal(resamples, draw_resamples(photos, count=count, seed=seed))


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_long_curves_are_computed_in_pieces_with_the_same_result(seed: int) -> None:
    matches = toy_matches(np.random.default_rng(seed), photos=10)
    resamples = draw_resamples(10, count=7, seed=0)
    together = average_precisions(matches, resamples)
    apart = [average_precisions(matches, row[None])[0] for row in resamples]
    np.testing.assert_allclose(together, apart, atol=1e-12)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    many = toy_matches(rng, photos=200_000)
    in_one = replace(
        many, photo=np.zeros_like(many.photo), annotated=many.annotated.sum(keepdims=True)
    )
    truth = average_precisions(in_one, np.array([[1]]))[0, 0]
    held = []
    for trial in range(200):
        resamples = draw_resamples(60, count=300, seed=trial)
        interval = percentile_interval(
            average_precisions(toy_matches(rng, photos=60), resamples)[:, 0]
        )
        assert interval is not None
        held.append(interval.low <= truth <= interval.high)
    # Somewhat less than 95 %: interpolation makes AP of few photos a little too high.
    assert 0.89 <= np.mean(held) <= 0.97


def toy_matches(rng: np.random.Generator, *, photos: int) -> Matches:
    """Photos of 1 to 6 instances, of which better-scored detections are right more often."""
    annotated = rng.integers(1, 7, photos)
    quality = rng.uniform(0.4, 1, photos)  # of the photo: its instances have it in common
    photo = np.repeat(np.arange(photos), annotated)
    score = rng.uniform(0, 1, len(photo))
    right = rng.random(len(photo)) < quality[photo] * (0.3 + 0.7 * score)
    order = np.argsort(-score)
    return Matches(photo[order], right[None, order], ~right[None, order], annotated)


def test_the_interval_is_the_middle_of_what_was_measured() -> None:
    interval = percentile_interval(np.append(np.arange(101.0), np.nan))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.array([np.nan])) is None
