from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskserve.core import Instances
from maskserve.datasets import Dataset
from maskserve.evaluation import measure, precision_recall
from maskserve.evaluation.curves import IOUS, RECALLS, interpolate_precision

rectangles = st.tuples(
    st.sampled_from(["ball", "box"]),
    st.tuples(*[st.integers(0, 3)] * 2).map(
        lambda xy: (25 * xy[0], 20 * xy[1], 25 * xy[0] + 20, 20 * xy[1] + 20)
    ),
)
finds = st.lists(
    st.tuples(rectangles, st.integers(-4, 4), st.floats(0.05, 1, allow_subnormal=False)), max_size=6
)


def test_precision_at_a_recall_is_the_best_at_that_or_more() -> None:
    right = np.array([True, False, True])
    precision = interpolate_precision(np.array([0.9, 0.8, 0.7]), right, annotated=4)
    by_recall = dict(zip(np.round(RECALLS, 2).tolist(), precision.tolist(), strict=True))
    assert [by_recall[r] for r in (0, 0.25)] == [1, 1]
    assert [by_recall[r] for r in (0.26, 0.5)] == pytest.approx([2 / 3, 2 / 3])
    assert by_recall[0.51] == 0


def test_order_of_the_input_does_not_matter() -> None:
    scores, right = np.array([0.7, 0.9, 0.8]), np.array([True, True, False])
    order = np.array([2, 0, 1])
    assert np.array_equal(
        interpolate_precision(scores, right, annotated=3),
        interpolate_precision(scores[order], right[order], annotated=3),
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    truth=st.lists(st.lists(rectangles, max_size=4), min_size=1, max_size=3),
    found=st.lists(finds, min_size=3, max_size=3),
)
def test_the_mean_of_a_row_is_pycocotools_average_precision(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    truth: list[list[tuple[str, tuple[int, int, int, int]]]],
    found: list[list[tuple[tuple[str, tuple[int, int, int, int]], int, float]]],
) -> None:
    dataset = make_dataset(*truth)
    scores: set[float] = set()
    predictions = []
    for of_photo in found[: len(truth)]:
        moved = []
        for (name, (x0, y0, x1, y1)), shift, score in of_photo:
            # pycocotools sorts equal scores in its own way.
            if float(np.float32(score)) not in scores:
                scores.add(float(np.float32(score)))
                moved.append((name, (x0, y0 + max(shift, 0), x1, y1 + shift), score))
        predictions.append(make_instances(*moved))
    precision = precision_recall(dataset, predictions)
    assert precision.shape == (len(IOUS), len(RECALLS))
    metrics = measure(dataset, predictions)
    expected = (metrics.segm["AP"] or 0, metrics.segm["AP50"] or 0, metrics.segm["AP75"] or 0)
    rows = (precision.mean(), precision[0].mean(), precision[5].mean())
    assert [100 * row for row in rows] == pytest.approx(expected, abs=1e-3)
