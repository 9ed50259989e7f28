"""Train in float64, and tell every loss and the weights; alone, or as one process of torchrun.

In float32, AdamW makes a rounding error of a gradient that is nearly zero as large as the learning
rate, so that two ways to compute the same part after a few steps. In float64 they stay together,
and whatever is wrong with a sum over processes shows at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from maskserve.training import TrainSettings, run
from maskserve.training.config import read_settings
from maskserve.training.module import MaskRcnnModule
from maskserve.training.norms import join_norms
from maskserve.training.photos import load_photos
from maskserve.training.processes import is_first, join_processes
from maskserve.training.trainer import train_loader, training_devices, val_loader


class _Recorder(lightning.Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.steps.append(values)


def train_in_float64(
    settings: TrainSettings, data: Path
) -> tuple[list[dict[str, float]], Mapping[str, Tensor]]:
    """What is logged at each step, and the averaged weights after the last one."""
    recorder = _Recorder()
    photos = load_photos(settings, data)
    model = run._build_model(settings, photos)
    join_norms(model)
    options: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            **training_devices(),
            **options,
            max_epochs=settings.epochs,
            precision="64-true",
            callbacks=[EMAWeightAveraging(decay=0.5), recorder],
        )
        trainer.fit(
            MaskRcnnModule(model, settings, val_photos=len(photos.val)),
            train_loader(photos.examples(settings), settings),
            val_loader(photos.val, settings),
        )
    return recorder.steps, model.state_dict()


if __name__ == "__main__":
    data_folder, *recipes = map(Path, sys.argv[1:])
    with join_processes():
        for recipe in recipes:
            told = train_in_float64(read_settings(recipe, {}), data_folder)
            if is_first():
                torch.save(told, recipe.with_suffix(".pt"))
