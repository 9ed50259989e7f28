"""What happened during a training, step by step: ``results.csv`` and its curves."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from maskserve.reporting.charts import (
    Curves,
    draw_learning_rate,
    draw_loss_parts,
    draw_losses,
    draw_quality,
)
from maskserve.runtime.files import replacing

__all__ = ["merge_logs", "read_results", "write_curves"]

RESULTS_FILE = "results.csv"
CURVES_FILE = "curves.png"

_LOG_FILE = "metrics.csv"  # Lightning's name


def merge_logs(run: Path) -> None:
    """One ``results.csv`` from Lightning's logs: a row a step, later starts taking precedence.

    Lightning writes a log for each start and a row for each call; a run that was killed and
    resumed did some steps twice. Lightning counts steps from 0; here, ``step`` is how many were
    done.
    """
    rows: dict[int, dict[str, str]] = {}
    logs = run / "logs"
    for start in range(len(list(logs.glob("start_*")))):
        path = logs / f"start_{start}" / _LOG_FILE
        if not path.exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                filled = {key: value for key, value in row.items() if value}
                rows.setdefault(int(row["step"]) + 1, {}).update(filled)
    columns = sorted({key for row in rows.values() for key in row} - {"step", "epoch"})
    with (
        replacing(run / RESULTS_FILE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, ["step", *columns], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**rows[step], "step": step} for step in sorted(rows))


def read_results(run: Path) -> Curves:
    """Steps and values of each column of ``results.csv`` that has any; none without the file."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    path = run / RESULTS_FILE
    if not path.exists():
        return curves
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                if column != "step" and value:
                    steps, values = curves.setdefault(column, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
    return curves


def write_curves(run: Path) -> None:
    """``curves.png``: losses, their parts, validation AP and learning rate against steps."""
    curves = read_results(run)
    figure = Figure(figsize=(10, 7), layout="constrained")
    (losses, parts), (quality, rate) = figure.subplots(2, 2)
    draw_losses(losses, curves)
    draw_loss_parts(parts, curves)
    draw_quality(quality, curves)
    draw_learning_rate(rate, curves)
    with replacing(run / CURVES_FILE) as temporary:
        figure.savefig(temporary, dpi=120)
