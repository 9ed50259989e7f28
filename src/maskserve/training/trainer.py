"""Lightning's trainer for a run, and the batches that it feeds the network."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from maskserve.datasets import Dataset
from maskserve.training.averaging import KeptWeights
from maskserve.training.config import TrainSettings
from maskserve.training.data import StepSampler, TrainingExamples, ValidationExamples, collate
from maskserve.training.processes import (
    first_alone,
    process_count,
    rank,
    share,
    started_by_torchrun,
)

__all__ = ["make_trainer", "train_loader", "training_devices", "val_loader"]


def make_trainer(
    settings: TrainSettings, out: Path, loggers: list[Logger], validator: Callback
) -> lightning.Trainer:
    """The trainer of a run.

    Args:
        settings: Of the run.
        out: The run folder, for checkpoints.
        loggers: See :func:`maskserve.training.loggers.run_loggers`.
        validator: Measures the weights to keep, which have been swapped in by then.
    """
    averaged_steps = max(min(settings.ema_steps, settings.steps // 10), 1)
    return lightning.Trainer(
        **training_devices(),
        max_epochs=settings.epochs,
        precision="bf16-mixed" if _use_bf16(settings) else "32-true",
        logger=loggers,
        log_every_n_steps=min(10, settings.steps_per_epoch),
        num_sanity_val_steps=0,
        limit_val_batches=0 if settings.has_stand_ins else None,
        enable_model_summary=False,
        callbacks=[
            KeptWeights(steps=averaged_steps, initial_share=settings.initial_share),
            validator,  # after the weights to keep have been swapped in
            ModelCheckpoint(out, filename="last", enable_version_counter=False),
            _ProgressBar(),
        ],
    )


def train_loader(examples: TrainingExamples, settings: TrainSettings) -> DataLoader[Any]:
    """This process's part of the batches to learn from; an epoch lies between validations."""
    return DataLoader(
        examples,
        batch_size=settings.batch_size // process_count(),
        sampler=StepSampler(
            settings.steps_per_epoch * settings.batch_size,
            rank=rank(),
            processes=process_count(),
        ),
        num_workers=settings.workers,
        persistent_workers=False,  # the sampler's epoch must reach the workers
        collate_fn=collate,
    )


def val_loader(dataset: Dataset, settings: TrainSettings) -> DataLoader[Any]:
    """This process's part of the validation photos, one at a time."""
    examples = ValidationExamples(dataset, settings.preprocess)
    return DataLoader(examples, sampler=share(len(dataset)), collate_fn=collate)


def training_devices() -> dict[str, Any]:
    """The trainer's arguments for the devices of this process and of the others."""
    if not started_by_torchrun():
        return {"devices": 1}
    return {
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",  # others train alone only
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        # Norms hold the same statistics in every process from the start.
        "strategy": DDPStrategy(broadcast_buffers=False),
        "plugins": [_FirstReads()],
        "use_distributed_sampler": False,
    }


class _FirstReads(TorchCheckpointIO):
    """The first process reads a checkpoint for all: other machines need not have the run folder."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        read = partial(super().load_checkpoint, path, *args, **kwargs)
        return first_alone(read)


class _ProgressBar(RichProgressBar):
    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the name of the log's folder
        return metrics


def _use_bf16(settings: TrainSettings) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
