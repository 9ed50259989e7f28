"""Metrics on disk and on the screen."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table

from maskserve.evaluation.coco import METRIC_NAMES, Metrics
from maskserve.runtime.files import write_file

__all__ = ["metrics_table", "write_metrics"]


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write ``metrics.json``: see :meth:`Metrics.to_dict`; what was not measured is null.

    Raises:
        OutputError: The file cannot be written.
    """
    write_file(path, json.dumps(metrics.to_dict(), indent=2, ensure_ascii=False) + "\n")


def metrics_table(metrics: Metrics) -> Table:
    """A table for the terminal: boxes and masks, then the masks of each class if there are many.

    Classes without any instance in the data set are left out; “–” stands for not measured.
    """
    table = Table(
        title=f"{metrics.dataset_name}: {metrics.photo_count} photos, "
        f"{metrics.instance_count} instances"
    )
    table.add_column("")
    for name in METRIC_NAMES:
        table.add_column(name, justify="right")
    rows = [("boxes", metrics.bbox), ("masks", metrics.segm)]
    if len(metrics.per_class) > 1:
        of_classes = [(f"masks of {name}", by["segm"]) for name, by in metrics.per_class.items()]
        rows += [(title, values) for title, values in of_classes if values["AP"] is not None]
    for title, values in rows:
        cells = [
            "–" if (value := values[name]) is None else f"{value:.1f}" for name in METRIC_NAMES
        ]
        table.add_row(title, *cells)
    return table
