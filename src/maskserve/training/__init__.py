"""Fine-tuning on annotated photos, by Lightning."""

from maskserve.training.config import TrainSettings, read_settings
from maskserve.training.folder import PROBE_FILE
from maskserve.training.record import Validation
from maskserve.training.report import CARD_FILE, write_card
from maskserve.training.run import load_run, load_run_predictor, report_run, train

__all__ = [
    "CARD_FILE",
    "PROBE_FILE",
    "TrainSettings",
    "Validation",
    "load_run",
    "load_run_predictor",
    "read_settings",
    "report_run",
    "train",
    "write_card",
]
