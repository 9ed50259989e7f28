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
from maskserve.training.exactness import masks_at_corners, propose_in_float32
from maskserve.training.processes import gather, process_count
from maskserve.training.sampling import LossSampling

__all__ = ["MaskRcnnModule"]

_GIVE_UP_AFTER = 50
"""Steps in a row whose gradient is not finite; then the run has diverged for good."""

Batch = tuple[list[Tensor], list[Target]]


class MaskRcnnModule(lightning.LightningModule):
    """Trains a torchvision Mask R-CNN.

    Args:
        model: Changed in place.
        settings: Decides rates, schedule and clipping.
        val_photos: How many photos it is validated on, one a batch.
    """

    def __init__(self, model: MaskRCNN, settings: TrainSettings, *, val_photos: int = 0) -> None:
        super().__init__()
        # Depthwise convolutions on CPUs run a third faster with channels in the last axis.
        self.model = model.to(memory_format=torch.channels_last)
        self._settings = settings
        propose_in_float32(model)
        self._sampling = LossSampling(model, settings.seed)
        self._skipped_in_a_row = 0
        self._skipped = 0
        self._val_photos = val_photos
        self._val_losses: list[float] = []

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        photos, targets = batch
        self._sampling.begin(targets)
        shifted = [{**target, "masks": masks_at_corners(target["masks"])} for target in targets]
        losses: dict[str, Tensor] = self.model(photos, shifted)
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of this process's part of the batch.

        torchvision's losses are means over the anchors or boxes that were drawn in this process,
        and the gradient will be the mean over the processes. Weights make it the gradient of the
        means over all that was drawn; those are logged. A single process weighs by 1.
        """
        losses = self._losses(batch)
        means = torch.stack(list(losses.values()))
        counts = torch.stack([self._sampling.counts()[name] for name in losses]).to(means)
        here = torch.stack([counts * means.detach(), counts])
        sums, all_counts = self.trainer.strategy.reduce(here, reduce_op="sum")
        all_counts = all_counts.clamp(min=1)  # no masks if there is no object in the whole batch
        self.log("loss", (sums / all_counts).sum(), prog_bar=True)
        self.log_dict(dict(zip(losses, sums / all_counts, strict=True)))
        weighted: Tensor = counts * process_count() / all_counts * means
        return weighted.sum()

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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        # torchvision computes losses in training mode only. Batch norm must not learn from
        # validation photos.
        self.model.train()
        for layer in self.model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        self._val_losses.append(float(torch.stack(list(self._losses(batch).values())).sum()))

    def on_validation_epoch_end(self) -> None:
        losses = gather(self._val_losses, self._val_photos)
        self.log("val_loss", sum(losses) / len(losses), prog_bar=True)
        self._val_losses = []

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
