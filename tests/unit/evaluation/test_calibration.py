from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskserve.core import Instances
from maskserve.datasets import Dataset
from maskserve.evaluation import calibrate_threshold

ONE = (10, 10, 30, 30)
TWO = (50, 10, 70, 30)
THREE = (10, 60, 30, 80)
NOWHERE = (90, 60, 110, 80)


def test_threshold_lies_between_the_right_and_the_wrong(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", ONE), ("ball", TWO)])
    found = make_instances(
        ("ball", ONE, 0.9), ("ball", TWO, 0.8), ("ball", NOWHERE, 0.4), ("ball", NOWHERE, 0.2)
    )
    calibration = calibrate_threshold(dataset, [found])
    assert calibration.threshold == pytest.approx(0.6)
    assert calibration.f1 == 1
    assert [round(point.threshold, 3) for point in calibration.curve] == [0.9, 0.8, 0.4, 0.2]
    assert [point.precision for point in calibration.curve] == [1, 1, 2 / 3, 0.5]
    assert [point.recall for point in calibration.curve] == [0.5, 1, 1, 1]


def test_photos_and_classes_are_pooled(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", ONE)], [("box", TWO)])
    predictions = [
        make_instances(("ball", ONE, 0.9), ("box", ONE, 0.3)),
        make_instances(("box", TWO, 0.7), ("ball", TWO, 0.1)),
    ]
    assert calibrate_threshold(dataset, predictions).threshold == pytest.approx(0.5)


def test_threshold_reaches_down_to_that_of_the_predictions(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    found = make_instances(("ball", ONE, 0.85))
    dataset = make_dataset([("ball", ONE)])
    assert calibrate_threshold(dataset, [found]).threshold == pytest.approx((0.85 + 0.05) / 2)


def test_highest_of_equally_good_gaps_counts(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    # F1 is 2/3 with the first instance alone, and again with the fourth: 2 * 2 / (4 + 2).
    dataset = make_dataset([("ball", ONE), ("ball", TWO)])
    found = make_instances(
        ("ball", ONE, 0.9), ("ball", NOWHERE, 0.85), ("ball", NOWHERE, 0.84), ("ball", TWO, 0.8)
    )
    calibration = calibrate_threshold(dataset, [found])
    assert calibration.f1 == pytest.approx(2 / 3)
    assert calibration.threshold == pytest.approx((0.9 + 0.85) / 2)


@pytest.mark.parametrize(("slack", "threshold"), [(0.1, 0.7), (0.2, 0.85)])
def test_a_higher_threshold_wins_where_f1_is_almost_the_best(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    slack: float,
    threshold: float,
) -> None:
    # F1 by threshold: 0.9 gives 2/3, 0.8 gives 1/2, 0.7 gives 4/5.
    dataset = make_dataset([("ball", ONE), ("ball", TWO)])
    found = make_instances(("ball", ONE, 0.9), ("ball", NOWHERE, 0.8), ("ball", TWO, 0.7))
    calibration = calibrate_threshold(dataset, [found], min_score=0.7, slack=slack)
    assert calibration.threshold == pytest.approx(threshold)


def test_second_instance_on_the_same_object_is_wrong(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    found = make_instances(("ball", ONE, 0.9), ("ball", ONE, 0.6))
    calibration = calibrate_threshold(make_dataset([("ball", ONE)]), [found])
    assert [point.precision for point in calibration.curve] == [1, 0.5]


def test_crowds_and_foreign_classes_count_neither_way(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", ONE)], crowds=[(50, 0, 120, 100)], classes=("ball",))
    found = make_instances(
        ("ball", ONE, 0.9),
        ("ball", TWO, 0.5),
        ("ball", NOWHERE, 0.4),
        ("kite", THREE, 0.3),
        classes=("kite", "ball"),
    )
    calibration = calibrate_threshold(dataset, [found])
    assert calibration.f1 == 1
    assert len(calibration.curve) == 1


@pytest.mark.parametrize("found", [[], [("ball", NOWHERE, 0.8)]])
def test_nothing_right_gives_no_evidence(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    found: list[tuple[str, tuple[int, int, int, int], float]],
) -> None:
    calibration = calibrate_threshold(make_dataset([("ball", ONE)]), [make_instances(*found)])
    assert (calibration.threshold, calibration.f1) == (0.5, 0)


@pytest.mark.parametrize(
    ("max_false_per_photo", "threshold"),
    [(0.0, 0.88), (0.5, 0.7), (1.0, 0.6)],
    ids=["none may be left", "one in two photos", "the best F1 is quiet enough"],
)
def test_threshold_rises_until_empty_photos_stay_empty(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    max_false_per_photo: float,
    threshold: float,
) -> None:
    dataset = make_dataset([("ball", ONE), ("ball", TWO)])
    found = make_instances(("ball", ONE, 0.9), ("ball", TWO, 0.8), ("ball", NOWHERE, 0.4))
    empty = [make_instances(("ball", ONE, 0.88), ("ball", TWO, 0.7)), make_instances()]
    calibration = calibrate_threshold(
        dataset, [found], backgrounds=empty, max_false_per_photo=max_false_per_photo
    )
    assert calibration.threshold == pytest.approx(threshold)
    shown = [score for instances in empty for score in instances.scores]
    left = sum(score > calibration.threshold for score in shown)
    assert left <= max_false_per_photo * len(empty)
    assert calibration.f1 == pytest.approx(2 / 3 if threshold > 0.8 else 1)


places = st.sampled_from([ONE, TWO, THREE, NOWHERE])
scores = st.integers(10, 99).map(lambda percent: percent / 100)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(places), st.lists(st.tuples(st.just("ball"), places, scores), max_size=6))
def test_no_other_threshold_has_a_better_f1(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    annotated: set[tuple[int, int, int, int]],
    found: list[tuple[str, tuple[int, int, int, int], float]],
) -> None:
    dataset = make_dataset([("ball", place) for place in annotated])
    calibration = calibrate_threshold(dataset, [make_instances(*found)])

    def f1_at(threshold: float) -> float:
        shown = [place for _, place, score in found if np.float32(score) >= threshold]
        right = len(annotated & set(shown))
        return 2 * right / max(len(shown) + len(annotated), 1)

    assert f1_at(calibration.threshold) == pytest.approx(calibration.f1)
    assert calibration.f1 == pytest.approx(max(f1_at(t) for t in np.linspace(0.05, 1, 191)))
    assert all(one.threshold > two.threshold for one, two in pairwise(calibration.curve))
