"""Which weights a training keeps: an average over its steps, and a share of those it began with."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

__all__ = ["KeptWeights"]

_IN_CHECKPOINT = "initial_weights"


class KeptWeights(EMAWeightAveraging):
    """Swaps the weights to keep in for validations, and leaves them in the model at the end.

    They are the exponential average over the steps, mixed with the initial weights. What lies
    between a model and what it was fine-tuned to is often better than either: Wortsman et al.,
    *Robust fine-tuning of zero-shot models*, CVPR 2022.

    Args:
        steps: The average runs over about so many.
        initial_share: Share of the initial weights, in 0..1.
    """

    def __init__(self, *, steps: int, initial_share: float) -> None:
        super().__init__(decay=1 - 1 / steps)
        self._initial_share = initial_share
        self._initial: dict[str, Tensor] = {}
        self._averaged: dict[str, Tensor] = {}

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        super().setup(trainer, pl_module, stage)
        if self._initial_share > 0:
            self._initial = _copy(pl_module)

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._averaged = self._mix_initial_in(pl_module)

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        with torch.no_grad():
            for name, value in pl_module.state_dict().items():
                if name in self._averaged:
                    value.copy_(self._averaged[name])
        self._averaged = {}
        super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        super().on_train_end(trainer, pl_module)
        self._mix_initial_in(pl_module)

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._initial:
            checkpoint[_IN_CHECKPOINT] = self._initial

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if self._initial:  # those of setup are of a model that has not been initialised
            self._initial = checkpoint[_IN_CHECKPOINT]

    def _mix_initial_in(self, module: lightning.LightningModule) -> dict[str, Tensor]:
        """Change the weights in place; what they were, if they change."""
        if not self._initial:
            return {}
        before = _copy(module)
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if name in before:
                    value.lerp_(self._initial[name].to(value), self._initial_share)
        return before


def _copy(module: lightning.LightningModule) -> dict[str, Tensor]:
    """Weights and statistics, without counters."""
    state = module.state_dict()
    return {name: value.clone() for name, value in state.items() if value.is_floating_point()}
