"""Where Lightning logs losses and AP: the run's own table, and what else was asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from maskserve.core.errors import MissingExtraError
from maskserve.training.config import TrainSettings
from maskserve.training.processes import is_first

__all__ = ["LoggerName", "make_loggers", "run_loggers"]

LoggerName = Literal["tensorboard", "wandb", "mlflow"]


def run_loggers(settings: TrainSettings, out: Path) -> list[Logger]:
    """The table of this start of a run, and what else was asked for; none but in the first process.

    Raises:
        MissingExtraError: The package of a logger is not installed.
    """
    if not is_first():
        return []
    start = f"start_{len(list((out / 'logs').glob('start_*')))}"
    others = make_loggers(settings.loggers, out, model=settings.name, version=start)
    table = CSVLogger(out, name="logs", version=start, flush_logs_every_n_steps=1)
    return [table, *others]


def make_loggers(
    names: Sequence[LoggerName], run: Path, *, model: str, version: str
) -> list[Logger]:
    """Lightning's own loggers, which read their packages' usual environment variables.

    Args:
        names: Which of them.
        run: The run folder, into which those write that write files.
        model: What the model is called.
        version: Tells the starts of a run apart.

    Raises:
        MissingExtraError: The package of one is not installed.
    """
    return [_make_logger(name, run, model=model, version=version) for name in names]


def _make_logger(name: LoggerName, run: Path, *, model: str, version: str) -> Logger:
    try:
        if name == "tensorboard":
            return TensorBoardLogger(run, name="tensorboard", version=version)
        if name == "wandb":
            return WandbLogger(name=f"{run.name} {version}", project=model, save_dir=run)
        return _make_mlflow_logger(model, run, f"{run.name} {version}")
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"Logging to {name} needs a package that is not installed.",
            hint=f"Install it with: pip install {name}",
        ) from None


def _make_mlflow_logger(experiment: str, run: Path, run_name: str) -> Logger:
    """Into a database in the run folder, unless ``MLFLOW_TRACKING_URI`` names a server.

    Lightning would write plain files, which MLflow refuses to do since its version 3.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return MLFlowLogger(experiment, run_name=run_name)
    run.mkdir(parents=True, exist_ok=True)  # SQLite makes files, not folders
    folder = run.resolve()
    return MLFlowLogger(
        experiment,
        run_name=run_name,
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifact_location=(folder / "mlruns").as_uri(),
    )
