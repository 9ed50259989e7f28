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
from maskserve.evaluation.curves import precision_recall
from maskserve.evaluation.errors import (
    ERROR_KINDS,
    ErrorAnalysis,
    ErrorKind,
    Mistake,
    analyse_errors,
)
from maskserve.evaluation.gallery import (
    annotated_instances,
    draw_gallery,
    draw_panel,
    write_gallery,
)
from maskserve.evaluation.photos import PhotoResult, coverage_error, judge_photos
from maskserve.evaluation.results import (
    metrics_table,
    read_predictions,
    write_metrics,
    write_predictions,
)

__all__ = [
    "ERROR_KINDS",
    "METRIC_NAMES",
    "Calibration",
    "ErrorAnalysis",
    "ErrorKind",
    "Metrics",
    "Mistake",
    "PhotoResult",
    "ThresholdPoint",
    "analyse_errors",
    "annotated_instances",
    "calibrate_threshold",
    "coverage_error",
    "draw_gallery",
    "draw_panel",
    "evaluate",
    "judge_photos",
    "measure",
    "metrics_table",
    "precision_recall",
    "predict_dataset",
    "read_predictions",
    "to_coco",
    "write_gallery",
    "write_metrics",
    "write_predictions",
]
