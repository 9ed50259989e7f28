"""Charts of a training and of an evaluation, each drawn into axes that are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from maskserve.evaluation.calibration import Calibration
from maskserve.evaluation.curves import IOUS, RECALLS
from maskserve.evaluation.errors import ErrorAnalysis, ErrorKind
from maskserve.evaluation.photos import PhotoResult

__all__ = [
    "ERROR_NAMES",
    "MOST_CLASSES",
    "Curves",
    "draw_confusion",
    "draw_coverage",
    "draw_error_costs",
    "draw_learning_rate",
    "draw_loss_parts",
    "draw_losses",
    "draw_precision_recall",
    "draw_quality",
    "draw_thresholds",
    "make_chart",
]

Curves = Mapping[str, tuple[list[int], list[float]]]
"""Steps and values by column of ``results.csv``."""

ERROR_NAMES: dict[ErrorKind, str] = {
    "missed": "missed",
    "false": "false",
    "duplicate": "found twice",
    "location": "badly located",
    "mask": "badly masked",
    "class": "wrong class",
}

MOST_CLASSES = 12
"""Of a confusion matrix, so that it can be read."""

# Okabe and Ito's colours, of which these show on white as well as on black.
_BLUE, _ORANGE, _GREEN, _RED, _PINK = "#3593d0", "#e08a00", "#009e73", "#d55e00", "#cc79a7"
_CYCLE = (_BLUE, _ORANGE, _GREEN, _RED, _PINK)

_LEGEND_COLUMNS = 5

_LOSSES = {
    "loss_objectness": "thing or not",
    "loss_rpn_box_reg": "rough box",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


def make_chart(draw: Callable[[Axes], None], *, size: tuple[float, float] = (5, 3.4)) -> Figure:
    """A figure of one chart, in inches (width, height), so small that phones can show it."""
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    return figure


def draw_losses(axes: Axes, curves: Curves) -> None:
    """Loss on training and validation photos against steps."""
    axes.set(title="Loss", yscale="log")
    _draw_columns(axes, curves, {"loss": "training", "val_loss": "validation"})
    _plain_numbers(axes)


def draw_loss_parts(axes: Axes, curves: Curves) -> None:
    """The five parts of the training loss against steps."""
    axes.set(title="Parts of the training loss", yscale="log")
    _draw_columns(axes, curves, _LOSSES)
    _plain_numbers(axes)


def draw_quality(axes: Axes, curves: Curves) -> None:
    """AP of the averaged weights at each validation."""
    axes.set(title="AP on validation photos", ylim=(0, 100))
    _draw_columns(axes, curves, {"val_mask_ap": "masks", "val_box_ap": "boxes"}, marker="o")


def draw_learning_rate(axes: Axes, curves: Curves) -> None:
    """Learning rate against steps."""
    axes.set(title="Learning rate")
    _draw_columns(axes, curves, {"learning_rate": ""})


def draw_precision_recall(axes: Axes, precision: npt.NDArray[np.float64]) -> None:
    """Precision against recall at IoU 0.5, 0.75 and in the mean.

    Args:
        axes: Where to.
        precision: As :func:`maskserve.evaluation.precision_recall` gives it.
    """
    rows = {f"IoU {iou:g}": precision[np.argmin(np.abs(IOUS - iou))] for iou in (0.5, 0.75)}
    rows["0.5 to 0.95"] = precision.mean(axis=0)
    for (label, row), colour in zip(rows.items(), _CYCLE, strict=False):
        axes.plot(
            100 * RECALLS, 100 * row, color=colour, label=f"{label}: AP {100 * row.mean():.1f}"
        )
    axes.set(title="Precision against recall", xlabel="recall, %", ylabel="precision, %")
    axes.set(xlim=(0, 100.5), ylim=(0, 102))
    _finish(axes)


def draw_thresholds(axes: Axes, calibration: Calibration, *, min_score: float) -> None:
    """Precision, recall and F1 against the confidence threshold, with the chosen one marked."""
    points = calibration.curve[::-1]
    thresholds = [point.threshold for point in points]
    for name, colour in (("precision", _ORANGE), ("recall", _GREEN), ("f1", _BLUE)):
        values = [100 * getattr(point, name) for point in points]
        axes.step(
            thresholds,
            values,
            where="pre",  # each point holds from the next lower score to its own
            color=colour,
            label="F1" if name == "f1" else name,
            linewidth=2.2 if name == "f1" else 1.2,
        )
    label = f"threshold {min_score:.2f}"
    axes.axvline(min_score, color=_RED, linestyle="--", linewidth=1.2, label=label)
    axes.set(title="What a threshold does", xlabel="confidence threshold", ylabel="%")
    axes.set(xlim=(0, 1), ylim=(0, 102))
    _finish(axes)


def draw_confusion(
    axes: Axes, confusion: npt.NDArray[np.int64], class_names: Sequence[str]
) -> None:
    """Annotated class by found class, with the background last.

    Classes that do not occur are left out, and those beyond the :data:`MOST_CLASSES` most frequent.

    Args:
        axes: Where to.
        confusion: As in :class:`maskserve.evaluation.ErrorAnalysis`.
        class_names: One for each row but the last.
    """
    count = (confusion.sum(axis=0) + confusion.sum(axis=1))[:-1]
    kept = np.sort(np.argsort(-count, kind="stable")[: min(np.sum(count > 0), MOST_CLASSES)])
    names = [class_names[index] for index in kept]
    kept = np.append(kept, len(class_names))
    confusion = confusion[kept][:, kept]
    # Shares of what was annotated; where nothing was, of what was found.
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    share[-1] = confusion[-1] / np.maximum(confusion.sum(axis=0), 1)
    colours = np.empty((*share.shape, 4))
    colours[..., :3] = to_rgb(_ORANGE)
    colours[np.diag_indices(len(share))] = (*to_rgb(_BLUE), 1)
    colours[..., 3] = 0.8 * share  # so that the page's text colour reads well on it
    axes.imshow(colours)
    rotation, align = (35, "right") if len(names) > 2 else (0, "center")
    axes.set_xticks(range(len(names) + 1), [*names, "not found"], rotation=rotation, ha=align)
    axes.set_yticks(range(len(names) + 1), [*names, "nothing"])
    axes.set(title="What was taken for what", xlabel="found", ylabel="annotated")
    for (row, column), count in np.ndenumerate(confusion):
        if row < len(names) or column < len(names):
            axes.text(column, row, str(count), ha="center", va="center")


def draw_error_costs(axes: Axes, analysis: ErrorAnalysis, *, kinds: Sequence[ErrorKind]) -> None:
    """By how much AP50 would rise without each of some kinds of mistake, first on top."""
    kinds = kinds[::-1]
    gains = [max(analysis.ap50_without[kind] - analysis.ap50, 0.0) for kind in kinds]
    bars = axes.barh([ERROR_NAMES[kind] for kind in kinds], gains, color=_BLUE)
    axes.bar_label(bars, [f"+{gain:.1f}" for gain in gains], padding=4, fontsize=9)
    axes.set(title="What each kind of mistake costs", xlabel="points of mask AP50")
    axes.set_xlim(0, max(1.18 * max(gains), 1))
    _finish(axes)


def draw_coverage(axes: Axes, results: Sequence[PhotoResult]) -> None:
    """Found against annotated coverage of each photo."""
    annotated = [result.annotated_percent for result in results]
    found = [result.found_percent for result in results]
    limit = 1.08 * max([1.0, *annotated, *found])
    axes.plot([0, limit], [0, limit], color="#8899a6", linewidth=1, label="as annotated")
    axes.scatter(annotated, found, s=28, color=_BLUE, alpha=0.8, label="a photo")
    axes.set(title="Covered part of each photo", xlabel="annotated, %", ylabel="found, %")
    axes.set(xlim=(0, limit), ylim=(0, limit))
    _finish(axes)


def _draw_columns(
    axes: Axes, curves: Curves, labels: Mapping[str, str], *, marker: str = ""
) -> None:
    for (column, label), colour in zip(labels.items(), _CYCLE, strict=False):
        if column in curves:
            axes.plot(*curves[column], label=label, color=colour, marker=marker, linewidth=1.3)
    axes.set_xlabel("steps")
    axes.set_xlim(left=0)
    _finish(axes)


def _plain_numbers(axes: Axes) -> None:
    """0.5, 1 and 2 on a logarithmic axis, where matplotlib writes powers of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes) -> None:
    """A quiet grid, and a legend between title, which must be set, and chart: it hides nothing."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(
            handles,
            labels,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=_LEGEND_COLUMNS,
            frameon=False,
            fontsize=8.5,
            columnspacing=1.2,
            handlelength=1.4,
        )
        rows = -(-len(labels) // _LEGEND_COLUMNS)
        axes.set_title(axes.get_title(), pad=11 + 14 * rows)
