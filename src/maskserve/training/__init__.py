"""Fine-tuning on annotated photos, by Lightning."""

from maskserve.training.config import TrainSettings, read_settings
from maskserve.training.run import PROBE_FILE, Validation, load_run, load_run_predictor, train

__all__ = [
    "PROBE_FILE",
    "TrainSettings",
    "Validation",
    "load_run",
    "load_run_predictor",
    "read_settings",
    "train",
]
