"""Average precision of boxes and masks, by COCO's rules and with pycocotools' numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskserve.core.boxes import xyxy_to_xywh
from maskserve.core.errors import DatasetError
from maskserve.core.masks import rle_area, rle_box_xyxy
from maskserve.core.predictor import Predictor
from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset
from maskserve.runtime.image_io import read_image

__all__ = [
    "METRIC_NAMES",
    "MIN_SCORE",
    "Kind",
    "Metrics",
    "evaluate",
    "measure",
    "predict_dataset",
    "predict_photos",
    "require_common_class",
    "run_cocoeval",
    "to_coco",
]

MIN_SCORE = 0.05
"""Weaker instances are not evaluated: they change no average precision, and there are many."""

_AR_LIMIT = 100

Values = dict[str, float | None]
Kind = Literal["bbox", "segm"]

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
"""The keys of ``Metrics.bbox`` and ``Metrics.segm``.

``AP`` is the mean over IoU 0.50:0.05:0.95, ``s``, ``m`` and ``l`` are instances of up to 32^2,
up to 96^2 and more pixels, ``AR100`` is the average recall with at most 100 instances a photo.
Precision too is that of the 100 best instances a photo, as COCO has it; but of more if a photo of
the data set holds more, which would otherwise count as missed however good the model.
https://cocodataset.org/#detection-eval
"""


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """How well predictions fit a data set.

    Attributes:
        dataset_name: Name of the data set.
        bbox: By :data:`METRIC_NAMES`, 0..100; None where the data set has no instance of that
            size, so that nothing could be measured.
        segm: The same of masks.
        per_class: ``{class name: {"bbox": …, "segm": …}}`` for every class of the data set.
        photo_count: Photos.
        instance_count: Annotated instances without crowds.
        predictions: What was found, photo by photo in the order of the data set.
    """

    dataset_name: str
    bbox: Values
    segm: Values
    per_class: dict[str, dict[str, Values]]
    photo_count: int
    instance_count: int
    predictions: tuple[Instances, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but the predictions."""
        return {
            "dataset": self.dataset_name,
            "photos": self.photo_count,
            "instances": self.instance_count,
            "bbox": self.bbox,
            "segm": self.segm,
            "per_class": self.per_class,
        }

    def summary(self) -> dict[str, dict[str, float]]:
        """``{"bbox": …, "segm": …}`` of all classes, as in a bundle's manifest: only numbers."""
        return {
            kind: {name: value for name, value in values.items() if value is not None}
            for kind, values in (("bbox", self.bbox), ("segm", self.segm))
        }


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    min_score: float = MIN_SCORE,
    on_progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Find instances in every photo of a data set and measure how well they fit.

    Args:
        predictor: Any model.
        dataset: Annotated photos.
        min_score: Weaker instances are not looked at. Average precision ranks instances by
            score, so this lies far below the threshold of everyday use.
        on_progress: Is told after each photo how many are done, and of how many.

    Raises:
        DatasetError: A photo does not have the size that its annotations are for, or the model
            has none of the data set's classes.
        ImageError: A photo cannot be read.
        EngineError: The model failed.
    """
    require_common_class(predictor.manifest.classes, dataset)
    predictions = predict_dataset(predictor, dataset, min_score=min_score, on_progress=on_progress)
    return measure(dataset, predictions)


def predict_dataset(
    predictor: Predictor,
    dataset: Dataset,
    *,
    min_score: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Instances]:
    """The first half of :func:`evaluate`: instances by photo, in the order of the data set."""
    predictions = []
    for sample in dataset.samples:
        image = read_image(sample.image_path)
        if image.shape[:2] != sample.image_size:
            raise DatasetError(
                f"{sample.image_path} has the size {image.shape[:2]}, "
                f"but its annotations are for {sample.image_size} (height, width)."
            )
        predictions.append(predictor.predict(image, min_score=min_score))
        if on_progress is not None:
            on_progress(len(predictions), len(dataset))
    return predictions


def predict_photos(
    predictor: Predictor, photos: Sequence[Path], *, min_score: float
) -> list[Instances]:
    """Instances in photos that have no annotations, in their order."""
    return [predictor.predict(read_image(photo), min_score=min_score) for photo in photos]


def measure(dataset: Dataset, predictions: Sequence[Instances]) -> Metrics:
    """The second half of :func:`evaluate`.

    Classes go by name. What was found of a class that the data set does not have is left out;
    a class that the model does not have counts with its average precision of 0.

    Args:
        dataset: Annotated photos.
        predictions: One entry a photo, in the same order, in pixels of the photo.

    Raises:
        DatasetError: Predictions were made, but the model has none of the data set's classes.
    """
    for instances in predictions:
        require_common_class(instances.class_names, dataset)
    bbox, segm = (run_cocoeval(kind, dataset, predictions) for kind in ("bbox", "segm"))
    return Metrics(
        dataset_name=dataset.name,
        bbox=_values(bbox),
        segm=_values(segm),
        per_class={
            name: {"bbox": _values(bbox, category_id), "segm": _values(segm, category_id)}
            for name, category_id in zip(
                dataset.categories.names, dataset.categories.category_ids, strict=True
            )
        },
        photo_count=len(dataset),
        instance_count=sum(
            not annotation.is_crowd
            for sample in dataset.samples
            for annotation in sample.annotations
        ),
        predictions=tuple(predictions),
    )


def to_coco(dataset: Dataset) -> dict[str, Any]:
    """A data set as the content of a COCO file, with masks as compressed RLE.

    Boxes and areas are those of the masks, whatever a file said of them: so a prediction that
    is exactly right also counts as exactly right.
    """
    annotations: list[dict[str, Any]] = []
    for sample in dataset.samples:
        for annotation in sample.annotations:
            rle = annotation.to_rle(sample.image_size)
            annotations.append(
                {
                    # COCOeval takes an id of 0 for “not matched”.
                    "id": len(annotations) + 1,
                    "image_id": sample.image_id,
                    "category_id": dataset.categories.id_of(annotation.class_index),
                    "segmentation": rle,
                    "bbox": xyxy_to_xywh(rle_box_xyxy(rle)[None])[0].tolist(),
                    "area": rle_area(rle),
                    "iscrowd": int(annotation.is_crowd),
                }
            )
    return {
        "images": [
            {
                "id": sample.image_id,
                "file_name": sample.image_path.name,
                "height": sample.image_size[0],
                "width": sample.image_size[1],
            }
            for sample in dataset.samples
        ],
        "annotations": annotations,
        "categories": [
            {"id": category_id, "name": name}
            for name, category_id in zip(
                dataset.categories.names, dataset.categories.category_ids, strict=True
            )
        ],
    }


def require_common_class(class_names: Sequence[str], dataset: Dataset) -> None:
    """Refuse a model that has none of a data set's classes.

    Raises:
        DatasetError: It has none of them.
    """
    names = dataset.categories.names
    if not set(class_names) & set(names):
        raise DatasetError(
            f"The model finds {_shortened(class_names)}, but “{dataset.name}” has annotations of "
            f"{_shortened(names)}.",
            hint="If these are the same things, name them alike: with --class-name where VIA files "
            "name no class, else in the annotations.",
        )


def _shortened(names: Sequence[str], shown: int = 5) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(f"“{name}”" for name in names[:shown]) + rest


def _to_results(
    kind: Kind, dataset: Dataset, predictions: Sequence[Instances]
) -> list[dict[str, Any]]:
    """Predictions as pycocotools holds them after ``COCO.loadRes``.

    That function itself fails where there are none at all, and treats boxes that come with
    masks as if there were no masks.
    """
    results: list[dict[str, Any]] = []
    id_by_name = dict(zip(dataset.categories.names, dataset.categories.category_ids, strict=True))
    for sample, instances in zip(dataset.samples, predictions, strict=True):
        boxes_xywh = xyxy_to_xywh(instances.boxes_xyxy).astype(np.float64).tolist()
        rles = instances.rles() if kind == "segm" else [None] * len(instances)
        areas = [w * h for _, _, w, h in boxes_xywh] if kind == "bbox" else instances.areas_px
        for i, class_index in enumerate(instances.class_indices.tolist()):
            category_id = id_by_name.get(instances.class_names[class_index])
            if category_id is not None:
                results.append(
                    {
                        "id": len(results) + 1,
                        "image_id": sample.image_id,
                        "category_id": category_id,
                        "score": float(instances.scores[i]),
                        "bbox": boxes_xywh[i],
                        "segmentation": rles[i],
                        "area": float(areas[i]),
                        "iscrowd": 0,
                    }
                )
    return results


def run_cocoeval(kind: Kind, dataset: Dataset, predictions: Sequence[Instances]) -> Any:
    """A :class:`COCOeval` of boxes or masks that has matched and accumulated."""
    truth = to_coco(dataset)
    results = _to_results(kind, dataset, predictions)
    with redirect_stdout(io.StringIO()):  # it reports its progress by print
        ground_truth, detections = COCO(), COCO()
        ground_truth.dataset = truth
        detections.dataset = {**truth, "annotations": results}
        ground_truth.createIndex()
        detections.createIndex()
        evaluation = COCOeval(ground_truth, detections, kind)
        fullest = max((len(sample.annotations) for sample in dataset.samples), default=0)
        evaluation.params.maxDets = [_AR_LIMIT, max(_AR_LIMIT, fullest)]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _values(evaluation: Any, category_id: int | None = None) -> Values:
    """Means over one class or over all of them, as in ``COCOeval.summarize``."""
    parameters = evaluation.params
    classes = slice(None) if category_id is None else [parameters.catIds.index(category_id)]
    # Axes: IoU threshold, recall, class, range of areas, limit of instances a photo.
    precision = evaluation.eval["precision"][..., -1][:, :, classes]
    recall = evaluation.eval["recall"][..., 0, 0][:, classes]
    half, three_quarters = (int(np.argmin(np.abs(parameters.iouThrs - x))) for x in (0.5, 0.75))
    return {
        "AP": _mean_percent(precision[..., 0]),
        "AP50": _mean_percent(precision[half, ..., 0]),
        "AP75": _mean_percent(precision[three_quarters, ..., 0]),
        "APs": _mean_percent(precision[..., 1]),
        "APm": _mean_percent(precision[..., 2]),
        "APl": _mean_percent(precision[..., 3]),
        "AR100": _mean_percent(recall),
    }


def _mean_percent(values: npt.NDArray[np.float64]) -> float | None:
    measured = values[values > -1]
    # To 6 decimals: pycocotools' guard against dividing by zero makes 99.99999999999997 of 100.
    return round(100 * float(measured.mean()), 6) if measured.size else None
