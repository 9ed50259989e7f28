from __future__ import annotations

import numpy as np
import pytest

from maskserve.reporting.charts import (
    MOST_CLASSES,
    draw_confusion,
    draw_losses,
    draw_precision_recall,
    draw_quality,
    make_chart,
)


def test_the_legend_lies_between_title_and_chart() -> None:
    curves = {"loss": ([10, 20], [2.0, 1.0]), "val_loss": ([20], [1.5])}
    figure = make_chart(lambda axes: draw_losses(axes, curves))
    figure.canvas.draw()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]
    title, box = axes.title.get_window_extent(), legend.get_window_extent()
    assert title.y0 >= box.y1 - 1
    assert box.y0 >= axes.get_window_extent().y1 - 1


def test_a_curve_that_was_not_logged_is_left_out() -> None:
    (axes,) = make_chart(lambda axes: draw_quality(axes, {"loss": ([10], [2.0])})).axes
    assert not axes.lines
    assert axes.get_legend() is None


def test_average_precision_is_in_the_legend() -> None:
    precision = np.zeros((10, 101))
    precision[0] = 0.5
    (axes,) = make_chart(lambda axes: draw_precision_recall(axes, precision)).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "IoU 0.5: AP 50.0",
        "IoU 0.75: AP 0.0",
        "0.5 to 0.95: AP 5.0",
    ]


def test_a_confusion_names_classes_that_occur() -> None:
    confusion = np.array([[3, 0, 0, 1], [0, 0, 0, 0], [1, 0, 4, 0], [2, 0, 0, 0]])
    (axes,) = make_chart(lambda axes: draw_confusion(axes, confusion, ["a", "b", "c"])).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "c", "not found"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c", "nothing"]
    counts = [text.get_text() for text in axes.texts]
    assert counts == ["3", "0", "1", "1", "4", "0", "2", "0"]


def test_of_many_classes_the_most_frequent_are_shown_in_their_order() -> None:
    confusion = np.diag([*range(1, 31), 0])
    names = [f"class {number}" for number in range(30)]
    (axes,) = make_chart(lambda axes: draw_confusion(axes, confusion, names)).axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == [*names[-MOST_CLASSES:], "nothing"]


@pytest.mark.parametrize("classes", [0, 1])
def test_a_confusion_of_nothing_is_drawn(classes: int) -> None:
    confusion = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    (axes,) = make_chart(lambda axes: draw_confusion(axes, confusion, ["a"][:classes])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nothing"]
