"""Metrics and predictions on disk, metrics on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from maskserve.core.errors import DatasetError
from maskserve.core.masks import crop_from_rle
from maskserve.core.types import CocoResult, Instances
from maskserve.datasets.types import Dataset
from maskserve.evaluation.coco import METRIC_NAMES, Metrics
from maskserve.runtime.files import write_file

__all__ = ["metrics_table", "read_predictions", "write_metrics", "write_predictions"]


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write ``metrics.json``: see :meth:`Metrics.to_dict`; what was not measured is null.

    Raises:
        OutputError: The file cannot be written.
    """
    write_file(path, json.dumps(metrics.to_dict(), indent=2, ensure_ascii=False) + "\n")


def write_predictions(path: Path, dataset: Dataset, predictions: Sequence[Instances]) -> None:
    """Write what was found as a COCO results file, which every tool for COCO reads.

    Classes that the data set does not have, and so no id for, are left out.
    https://cocodataset.org/#format-results

    Args:
        path: Where to.
        dataset: Gives the ids of photos and classes.
        predictions: One entry a photo, in the same order.

    Raises:
        OutputError: The file cannot be written.
    """
    ids = dict(zip(dataset.categories.names, dataset.categories.category_ids, strict=True))
    results: list[CocoResult] = []
    for sample, instances in zip(dataset.samples, predictions, strict=True):
        known = np.array([name in ids for name in instances.class_names])
        results += instances.select(known[instances.class_indices]).to_coco(
            sample.image_id, category_ids=[ids.get(name, 0) for name in instances.class_names]
        )
    lines = ",\n".join(json.dumps(result) for result in results)
    write_file(path, f"[\n{lines}\n]\n")


def read_predictions(path: Path, dataset: Dataset) -> list[Instances]:
    """What :func:`write_predictions` has written, for the same data set.

    Returns:
        One entry a photo of ``dataset``, with its classes. Masks come back exactly, boxes as
        exactly as left, top, width and height give them in float32.

    Raises:
        DatasetError: The file is missing or damaged, or belongs to other photos or classes.
    """
    by_photo: dict[int, list[dict[str, Any]]] = {sample.image_id: [] for sample in dataset.samples}
    try:
        for result in json.loads(path.read_text(encoding="utf-8")):
            by_photo[result["image_id"]].append(result)
        return [
            _to_instances(by_photo[sample.image_id], sample.image_size, dataset)
            for sample in dataset.samples
        ]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} does not hold predictions for “{dataset.name}”: {error!r}."
        ) from None


def _to_instances(
    results: list[dict[str, Any]], size: tuple[int, int], dataset: Dataset
) -> Instances:
    boxes = np.array([result["bbox"] for result in results], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    categories = dataset.categories
    class_indices = [categories.index_of_id(result["category_id"]) for result in results]
    return Instances(
        image_size=size,
        class_names=categories.names,
        boxes_xyxy=boxes,
        scores=np.array([result["score"] for result in results], dtype=np.float32),
        class_indices=np.array(class_indices, dtype=np.int64),
        crops=tuple(crop_from_rle(result["segmentation"]) for result in results),
    )


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
