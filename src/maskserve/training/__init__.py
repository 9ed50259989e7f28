"""Fine-tuning on annotated photos, by Lightning."""

from maskserve.training.config import TrainSettings, read_settings
from maskserve.training.run import Validation, load_run, load_run_predictor, train

__all__ = [
    "TrainSettings",
    "Validation",
    "load_run",
    "load_run_predictor",
    "read_settings",
    "train",
]
