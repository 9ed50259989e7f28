"""Batch norm over the batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from maskserve.models.backbones import FixedBatchNorm2d
from maskserve.training.processes import process_count

__all__ = ["JointBatchNorm2d", "join_norms"]


class JointBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of all processes' batches.

    The same as torch's SyncBatchNorm, which works on GPUs alone.

    Args:
        norm: Whose parameters and statistics it takes over.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.load_state_dict(norm.state_dict())
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Features (B, C, H, W) to features; B, H and W are the same in every process."""
        if not self.training:
            return super().forward(input)
        features = input.to(self.weight.dtype)  # of bfloat16, sums would be too coarse
        mean = _joint_mean(features.mean((0, 2, 3)))
        centred = features - mean.view(1, -1, 1, 1)
        variance = _joint_mean(centred.square().mean((0, 2, 3)))
        self._follow(mean.detach(), variance.detach(), features.numel() // self.num_features)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Move the statistics for evaluation; ``values`` of a channel were seen here."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        seen = values * process_count()
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (seen / max(seen - 1, 1)), self.momentum)


def join_norms(module: nn.Module) -> None:
    """Replace the norms that learn their statistics, so that these are over all processes."""
    if process_count() == 1:
        return
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            fixed = isinstance(layer, FixedBatchNorm2d) and layer.fixed
            if isinstance(layer, nn.BatchNorm2d) and not fixed:
                joint = (
                    nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
                    if torch.cuda.is_available()
                    else JointBatchNorm2d(layer)
                )
                setattr(parent, name, joint)


def _joint_mean(here: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(here)
    return total / process_count()


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's part of the loss depends on every one's input."""

    @staticmethod
    def forward(ctx: Any, here: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return _summed(here)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _summed(gradients[0])


def _summed(here: Tensor) -> Tensor:
    total = here.clone()
    distributed.all_reduce(total)
    return total
