from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from maskserve.core import Instances
from maskserve.datasets import Dataset
from maskserve.evaluation.matching import NONE, Overlaps, compare_photo, match

BALL = (20, 20, 80, 80)
SHIFTED = (20, 20, 80, 60)  # two thirds of the ball, so of IoU 2/3


def compare(dataset: Dataset, instances: Instances) -> Overlaps:
    return compare_photo(dataset.samples[0], instances, dataset.categories)


def test_overlaps_are_those_of_rectangles(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL), ("box", (90, 90, 100, 100))])
    overlaps = compare(dataset, make_instances(("ball", BALL, 0.9), ("ball", SHIFTED, 0.8)))
    for iou in (overlaps.mask_iou, overlaps.box_iou):
        assert iou == pytest.approx(np.array([[1, 0], [2 / 3, 0]]))


def test_classes_go_by_name_and_unknown_ones_do_not_count(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL)], classes=("ball", "box"))
    classes = ("star", "box", "ball")
    found = make_instances(("star", BALL, 0.9), ("ball", BALL, 0.8), classes=classes)
    overlaps = compare(dataset, found)
    assert overlaps.found_classes.tolist() == [NONE, 0]
    matching = match(overlaps, iou=0.5)
    assert matching.annotation_of.tolist() == [NONE, 0]
    assert matching.counts.tolist() == [False, True]


def test_the_best_scored_instance_takes_the_annotation(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL)])
    found = make_instances(("ball", BALL, 0.8), ("ball", SHIFTED, 0.9))
    assert match(compare(dataset, found), iou=0.5).annotation_of.tolist() == [0, NONE]
    # It is not good enough here, and leaves the annotation to the other.
    assert match(compare(dataset, found), iou=0.75).annotation_of.tolist() == [NONE, 0]


def test_an_instance_takes_the_annotation_that_it_fits_best(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", SHIFTED), ("ball", BALL)])
    found = make_instances(("ball", BALL, 0.9), ("ball", BALL, 0.8))
    assert match(compare(dataset, found), iou=0.5).annotation_of.tolist() == [1, 0]


def test_below_the_threshold_nothing_matches_or_counts(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL)])
    matching = match(compare(dataset, make_instances(("ball", BALL, 0.4))), iou=0.5, min_score=0.5)
    assert matching.annotation_of.tolist() == [NONE]
    assert matching.counts.tolist() == [False]


def test_what_lies_on_a_crowd_is_neither_right_nor_wrong(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL)], crowds=[(0, 0, 100, 100)])
    on_crowd = (2, 2, 12, 12)
    found = make_instances(
        ("ball", BALL, 0.9), ("ball", on_crowd, 0.8), ("ball", on_crowd, 0.7), ("box", BALL, 0.6)
    )
    matching = match(compare(dataset, found), iou=0.5)
    assert matching.annotation_of.tolist() == [0, NONE, NONE, NONE]
    assert matching.counts.tolist() == [True, False, False, True]


def test_an_empty_photo_has_nothing_to_match(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    matching = match(compare(make_dataset([]), make_instances(("ball", BALL, 0.9))), iou=0.5)
    assert matching.annotation_of.tolist() == [NONE]
    assert match(compare(make_dataset([]), make_instances()), iou=0.5).counts.shape == (0,)
