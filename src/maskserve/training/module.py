"""The Lightning module: losses, optimiser and schedule."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import TrainingError
from maskserve.training.config import TrainSettings
from maskserve.training.data import Target

__all__ = ["MaskRcnnModule"]

_GIVE_UP_AFTER = 50
"""Steps in a row whose gradient is not finite; then the run has diverged for good."""

Batch = tuple[list[Tensor], list[Target]]


class MaskRcnnModule(lightning.LightningModule):
    """Trains a torchvision Mask R-CNN.

    Args:
        model: Changed in place.
        settings: Decides rates, schedule and clipping.
    """

    def __init__(self, model: MaskRCNN, settings: TrainSettings) -> None:
        super().__init__()
        # Depthwise convolutions on CPUs run a third faster with channels in the last axis.
        self.model = model.to(memory_format=torch.channels_last)
        self._settings = settings
        self._skipped_in_a_row = 0
        self._skipped = 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        # Proposals and boxes are sampled at random inside the model. Seeding by the step makes
        # a resumed run take the same samples as one that was never interrupted.
        torch.manual_seed(self._settings.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        losses: dict[str, Tensor] = self.model(*batch)
        total = torch.stack(list(losses.values())).sum()
        self.log("loss", total.detach(), prog_bar=True)
        self.log_dict({name: value.detach() for name, value in losses.items()})
        return total

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,  # noqa: ARG002 - Lightning's signature
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip by norm, and leave a step out whose gradient is not finite.

        One overflow in bfloat16 would otherwise turn all weights into NaN: clipping divides by
        the norm, and infinity over infinity is NaN. Without gradients AdamW changes nothing.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters(), self._settings.clip_norm)
        if torch.isfinite(norm):
            self._skipped_in_a_row = 0
        else:
            optimizer.zero_grad(set_to_none=True)
            self._skipped += 1
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row >= _GIVE_UP_AFTER:
                raise TrainingError(
                    f"The gradient was not finite in {_GIVE_UP_AFTER} steps in a row, at step "
                    f"{self.global_step}.",
                    hint='Try a lower learning_rate, or precision = "f32".',
                )
        self.log("grad_norm", torch.nan_to_num(norm, posinf=0.0))
        self.log("skipped_steps", float(self._skipped))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # torchvision computes losses in training mode only. Batch norm must not learn from
        # validation photos, and sampling must not disturb the training's random numbers.
        self.model.train()
        for layer in self.model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch_idx)
            losses: dict[str, Tensor] = self.model(*batch)
        self.log("val_loss", torch.stack(list(losses.values())).sum(), batch_size=1, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        trained = [p for p in self.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim > 1]
        rest = [p for p in trained if p.ndim <= 1]  # biases and batch norm
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
        optimizer = AdamW(
            groups,
            lr=self._settings.learning_rate,
            weight_decay=self._settings.weight_decay,
        )
        schedule = LambdaLR(optimizer, self._rate_at)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        warmup, steps = self._settings.warmup_steps, self._settings.steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(steps - warmup, 1)
        return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
