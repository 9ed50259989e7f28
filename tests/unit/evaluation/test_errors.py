from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from maskserve.core import Instances
from maskserve.core.masks import MaskCrop
from maskserve.datasets import Dataset
from maskserve.evaluation import ERROR_KINDS, ErrorAnalysis, Mistake, analyse_errors, measure
from maskserve.evaluation.matching import NONE

BALL = (20, 20, 80, 80)
BOX = (85, 5, 115, 45)
FAR = (85, 60, 115, 95)

Find = tuple[str, tuple[int, int, int, int], float]
MakeDataset = Callable[..., Dataset]
MakeInstances = Callable[..., Instances]


def analyse(dataset: Dataset, *predictions: Instances) -> ErrorAnalysis:
    return analyse_errors(dataset, predictions, min_score=0.5)


def kinds(analysis: ErrorAnalysis) -> list[str]:
    return [mistake.kind for mistake in analysis.mistakes]


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Dataset:
    return make_dataset([("ball", BALL)])


def test_what_is_right_is_no_mistake(dataset: Dataset, make_instances: MakeInstances) -> None:
    analysis = analyse(dataset, make_instances(("ball", BALL, 0.9)))
    assert analysis.mistakes == ()
    assert analysis.ap50 == pytest.approx(100)
    assert analysis.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ["missed"]),
        ([("ball", BALL, 0.4)], ["missed"]),
        ([("ball", FAR, 0.9)], ["false", "missed"]),
        ([("ball", BALL, 0.9), ("ball", BALL, 0.8)], ["duplicate"]),
        ([("ball", (20, 20, 50, 40), 0.9)], ["location"]),
        ([("box", BALL, 0.9)], ["class"]),
        # Of another class, at the place of one that was found already.
        ([("ball", BALL, 0.9), ("box", BALL, 0.8)], ["false"]),
        # Overlaps one of another class, but not well: TIDE's “both”, here simply false.
        ([("box", (20, 20, 50, 40), 0.9)], ["false", "missed"]),
    ],
)
def test_each_kind(
    dataset: Dataset, make_instances: MakeInstances, found: list[Find], expected: list[str]
) -> None:
    assert kinds(analyse(dataset, make_instances(*found))) == expected


def test_a_box_that_fits_around_a_mask_that_does_not(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([("ball", BALL)])
    thin = np.zeros((60, 60), dtype=np.bool_)
    np.fill_diagonal(thin, val=True)
    instances = Instances(
        (100, 120),
        ("ball", "box"),
        np.array([BALL], dtype=np.float32),
        np.array([0.9], dtype=np.float32),
        np.array([0]),
        (MaskCrop(20, 20, thin),),
    )
    analysis = analyse(dataset, instances)
    assert analysis.mistakes == (Mistake("mask", photo=0, instance=0, annotation=0),)
    # Neither found nor missed as a kind of mistake, but the matrix counts it on both sides.
    assert analysis.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_mistakes_say_where(make_dataset: MakeDataset, make_instances: MakeInstances) -> None:
    dataset = make_dataset([("ball", BALL)], [("box", BOX), ("ball", BALL)])
    analysis = analyse(
        dataset,
        make_instances(("ball", BALL, 0.9)),
        make_instances(("ball", BALL, 0.9), ("ball", FAR, 0.8)),
    )
    assert analysis.mistakes == (
        Mistake("false", photo=1, instance=1, annotation=NONE),
        Mistake("missed", photo=1, instance=NONE, annotation=0),
    )
    assert (analysis.count("false"), analysis.count("missed"), analysis.count("mask")) == (1, 1, 0)


def test_a_crowd_is_not_missed_and_what_lies_on_it_is_not_false(
    make_dataset: MakeDataset, make_instances: MakeInstances
) -> None:
    dataset = make_dataset([("ball", BALL)], crowds=[(82, 0, 120, 100)])
    found = make_instances(("ball", BALL, 0.9), ("ball", FAR, 0.8))
    assert analyse(dataset, found).mistakes == ()


def test_confusion_has_annotated_rows_found_columns_and_the_background_last(
    make_dataset: MakeDataset, make_instances: MakeInstances
) -> None:
    dataset = make_dataset([("ball", BALL), ("box", BOX)], [("ball", BALL)])
    analysis = analyse(
        dataset,
        make_instances(("ball", BALL, 0.9), ("ball", BOX, 0.8), ("box", FAR, 0.7)),
        make_instances(),
    )
    assert analysis.confusion.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_every_annotation_is_in_one_row_of_the_confusion_and_every_find_in_one_column(
    make_dataset: MakeDataset, make_instances: MakeInstances
) -> None:
    dataset = make_dataset([("ball", BALL), ("box", BOX), ("box", FAR)])
    found = make_instances(
        ("ball", BALL, 0.9), ("ball", BALL, 0.8), ("box", BALL, 0.7), ("ball", BOX, 0.6)
    )
    confusion = analyse(dataset, found).confusion
    assert confusion[:-1].sum(axis=1).tolist() == [1, 2]
    assert confusion[:, :-1].sum(axis=0).tolist() == [3, 1]


def test_average_precision_is_that_of_the_metrics_and_repairs_do_not_lower_it(
    make_dataset: MakeDataset, make_instances: MakeInstances
) -> None:
    dataset = make_dataset([("ball", BALL), ("ball", BOX)], [("ball", BALL)])
    predictions = [
        make_instances(("ball", FAR, 0.95), ("ball", BALL, 0.9), ("ball", BALL, 0.3)),
        make_instances(("ball", (20, 20, 50, 40), 0.6)),
    ]
    analysis = analyse_errors(dataset, predictions, min_score=0.5)
    assert analysis.ap50 == pytest.approx(measure(dataset, predictions).segm["AP50"], abs=1e-3)
    gains = {kind: analysis.ap50_without[kind] - analysis.ap50 for kind in ERROR_KINDS}
    assert min(gains.values()) >= 0
    assert {kind for kind, gain in gains.items() if gain > 1} == {"missed", "false", "location"}


def test_repairing_the_only_mistake_gives_everything(
    dataset: Dataset, make_instances: MakeInstances
) -> None:
    analysis = analyse(dataset, make_instances(("ball", FAR, 0.9), ("ball", BALL, 0.8)))
    assert analysis.ap50 == pytest.approx(50)
    assert analysis.ap50_without["false"] == pytest.approx(100)
    assert analysis.ap50_without["class"] == pytest.approx(50)


def test_without_annotations_average_precision_is_0(
    make_dataset: MakeDataset, make_instances: MakeInstances
) -> None:
    analysis = analyse(make_dataset([]), make_instances(("ball", BALL, 0.9)))
    assert (analysis.ap50, kinds(analysis)) == (0, ["false"])
