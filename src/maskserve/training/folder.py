"""Where things lie in a run folder, and whether a run there may be gone on with."""

from __future__ import annotations

from pathlib import Path

from maskserve.core.errors import TrainingError
from maskserve.models.checkpoint import WEIGHTS_FILE
from maskserve.reporting.run import REPORT_FILE
from maskserve.training.config import TrainSettings, adopt_unset, settings_sha256
from maskserve.training.record import SETTINGS_FILE, read_record, read_validation

__all__ = [
    "CHECKPOINT_FILE",
    "FOLDS_FOLDER",
    "PROBE_FILE",
    "find_checkpoint",
    "fold_folders",
    "has_ended",
    "run_of_weights",
]

CHECKPOINT_FILE = "last.ckpt"
PROBE_FILE = "probe.jpg"
FOLDS_FOLDER = "folds"


def fold_folders(settings: TrainSettings, out: Path) -> list[tuple[int, Path]]:
    """Numbers of the folds of a cross-validation, from 1, and their run folders."""
    assert settings.folds is not None
    return [(fold, out / FOLDS_FOLDER / str(fold)) for fold in range(1, settings.folds + 1)]


def find_checkpoint(out: Path, settings: TrainSettings, *, resume: bool) -> Path | None:
    """The checkpoint to go on from; None for a fresh start.

    Raises:
        TrainingError: The folder holds something else, a run that nobody asked to go on with, or
            one with other settings.
    """
    if not (out / SETTINGS_FILE).exists():
        if out.is_dir() and any(entry.name != FOLDS_FOLDER for entry in out.iterdir()):
            raise TrainingError(f"{out} is not empty, and it is not a run folder.")
        return None
    if not resume:
        raise TrainingError(
            f"{out} already holds a run.", hint="Name another folder, or add --resume to go on."
        )
    record = read_record(out)
    if record.settings_sha256 != settings_sha256(adopt_unset(settings, record.settings)):
        raise TrainingError(
            f"The settings differ from those of the run in {out}.",
            hint=f"Go on with the same settings ({out / SETTINGS_FILE}), or name another folder.",
        )
    checkpoint = out / CHECKPOINT_FILE
    return checkpoint if checkpoint.exists() else None


def has_ended(run: Path, settings: TrainSettings, *, resume: bool) -> bool:
    """Whether nothing is left to do for a run.

    Raises:
        TrainingError: It may not be gone on with; see :func:`find_checkpoint`.
    """
    if find_checkpoint(run, settings, resume=resume) is None:
        return False
    return read_validation(run).step >= settings.steps and (run / REPORT_FILE).exists()


def run_of_weights(weights: str) -> Path | None:
    """The run folder that initial weights lie in, if they do."""
    folder = Path(weights).parent
    is_run = Path(weights).name == WEIGHTS_FILE and (folder / SETTINGS_FILE).exists()
    return folder if is_run else None
