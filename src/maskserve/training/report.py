"""The pictures and tables of a run folder."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from maskserve.runtime.files import replacing

__all__ = ["draw_curves", "merge_metrics", "read_metrics"]

METRICS_FILE = "metrics.csv"

_LOSSES = {
    "loss_objectness": "proposals: object or not",
    "loss_rpn_box_reg": "proposals: box",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


def merge_metrics(run: Path) -> None:
    """One ``metrics.csv`` from Lightning's logs: a row a step, later starts taking precedence.

    Lightning writes a log for each start and a row for each call; a run that was killed and
    resumed did some steps twice.
    """
    rows: dict[int, dict[str, str]] = {}
    logs = run / "logs"
    for start in range(len(list(logs.glob("start_*")))):
        path = logs / f"start_{start}" / METRICS_FILE
        if not path.exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                filled = {key: value for key, value in row.items() if value}
                rows.setdefault(int(row["step"]), {}).update(filled)
    columns = sorted({key for row in rows.values() for key in row} - {"step", "epoch"})
    with (
        replacing(run / METRICS_FILE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, ["step", *columns], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))


def read_metrics(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each column of ``metrics.csv`` that has any."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    with (run / METRICS_FILE).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                if column != "step" and value:
                    steps, values = curves.setdefault(column, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
    return curves


def draw_curves(run: Path) -> None:
    """``curves.png``: losses, their parts, and validation AP against steps."""
    curves = read_metrics(run)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    total, parts, quality = figure.subplots(1, 3)
    for column, label in (("loss", "training"), ("val_loss", "validation")):
        if column in curves:
            total.plot(*curves[column], label=label)
    for column, label in _LOSSES.items():
        if column in curves:
            parts.plot(*curves[column], label=label)
    for column, label in (("val_mask_ap", "masks"), ("val_box_ap", "boxes")):
        if column in curves:
            quality.plot(*curves[column], marker="o", label=label)
    total.set_title("Loss")
    parts.set_title("Parts of the training loss")
    quality.set(title="AP on validation photos", ylim=(0, 100))
    for axes in (total, parts, quality):
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    for axes in (total, parts):
        axes.set_yscale("log")
    with replacing(run / "curves.png") as temporary:
        figure.savefig(temporary, dpi=120)
