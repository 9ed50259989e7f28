"""How good a model is: average precision, the best threshold, and pictures to look at."""

from maskserve.evaluation.calibration import Calibration, ThresholdPoint, calibrate_threshold
from maskserve.evaluation.coco import (
    METRIC_NAMES,
    Metrics,
    evaluate,
    measure,
    predict_dataset,
    to_coco,
)
from maskserve.evaluation.gallery import annotated_instances, draw_gallery, write_gallery
from maskserve.evaluation.results import metrics_table, write_metrics

__all__ = [
    "METRIC_NAMES",
    "Calibration",
    "Metrics",
    "ThresholdPoint",
    "annotated_instances",
    "calibrate_threshold",
    "draw_gallery",
    "evaluate",
    "measure",
    "metrics_table",
    "predict_dataset",
    "to_coco",
    "write_gallery",
    "write_metrics",
]
