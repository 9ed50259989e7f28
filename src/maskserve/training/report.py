"""From a run folder to its report and model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskserve.core.manifest import Manifest
from maskserve.datasets import Dataset
from maskserve.evaluation import measure, read_predictions
from maskserve.reporting.evaluation import examine
from maskserve.reporting.history import merge_logs, write_curves
from maskserve.reporting.run import RunSummary, write_model_card, write_run_report
from maskserve.training.config import TrainSettings
from maskserve.training.record import RunRecord, Validation, read_record, read_validation

__all__ = ["CARD_FILE", "PREDICTIONS_FILE", "write_card", "write_reports"]

PREDICTIONS_FILE = "predictions.json"
CARD_FILE = "MODEL_CARD.md"


def write_reports(run: Path, dataset: Dataset) -> Path:
    """Bring everything in a run folder that is for people up to date.

    Args:
        run: A run folder with a validation.
        dataset: Its validation photos.

    Returns:
        The report.

    Raises:
        TrainingError: The folder holds no run, or one without a first validation.
        DatasetError: Its predictions are missing, or of other photos.
        ImageError: A photo cannot be read.
        OutputError: A file cannot be written.
    """
    record, validation = read_record(run), read_validation(run)
    metrics = measure(dataset, read_predictions(run / PREDICTIONS_FILE, dataset))
    summary = _summarise(record, validation, record.manifest(validation))
    merge_logs(run)
    write_curves(run)
    write_model_card(run / CARD_FILE, summary)
    return write_run_report(run, summary, examine(dataset, metrics, min_score=validation.min_score))


def write_card(run: Path, path: Path, manifest: Manifest) -> None:
    """Write a run's model card for a bundle, whose manifest may say more than the run does.

    Raises:
        TrainingError: The folder holds no run, or one without a first validation.
        OutputError: The file cannot be written.
    """
    write_model_card(path, _summarise(read_record(run), read_validation(run), manifest))


def _summarise(record: RunRecord, validation: Validation, manifest: Manifest) -> RunSummary:
    tested = validation.false_finds.get("test")
    return RunSummary(
        manifest=manifest,
        changed_settings=_changed(record.settings),
        train=record.train_counts,
        backgrounds=record.backgrounds,
        val=record.val_counts,
        fold_mask_ap=validation.fold_mask_ap,
        step=validation.step,
        planned_steps=record.settings.steps,
        seconds=validation.seconds,
        f1=validation.f1,
        coverage_error=validation.coverage_error,
        false_finds=(tested.photos, tested.instances) if tested and tested.photos else None,
    )


def _changed(settings: TrainSettings) -> dict[str, Any]:
    """Settings that differ from the defaults, by dotted key; of files and folders the name."""
    defaults = _flatten(TrainSettings().model_dump(mode="json"))
    return {
        key: Path(value).name if key in ("init", "refit") or key.endswith(".folder") else value
        for key, value in _flatten(settings.model_dump(mode="json")).items()
        if value != defaults.get(key) and key != "loggers"
    }


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= _flatten(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values
