"""Statistics of batch norms: of the batches of all processes, and of photos before a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torchvision.models.detection import MaskRCNN

from maskserve.core.predictor import Image
from maskserve.models import InferenceNetwork
from maskserve.models.backbones import FixedBatchNorm2d
from maskserve.training.processes import process_count

__all__ = ["JointBatchNorm2d", "join_norms", "set_statistics"]


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
            if isinstance(layer, nn.BatchNorm2d) and not _is_fixed(layer):
                joint = (
                    nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
                    if torch.cuda.is_available()
                    else JointBatchNorm2d(layer)
                )
                setattr(parent, name, joint)


def set_statistics(model: MaskRCNN, photos: Iterable[Image]) -> None:
    """Give norms that learn their statistics those of some photos; the model answers as before.

    In training they use those of the batch. What a bundle holds has neither, and would
    answer otherwise there than here.

    Args:
        model: Changed in place.
        photos: As the graph takes them, uint8 (h, w, 3); at least one.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and not _is_fixed(m)]
    moments = {norm: _Moments(norm.num_features) for norm in norms}
    hooks = [norm.register_forward_pre_hook(moments[norm].add) for norm in norms]
    trains = model.training
    network = InferenceNetwork(model, max_instances=1)
    with torch.inference_mode():
        for photo in photos:
            network(torch.tensor(photo)[None], torch.ones(1))
    model.train(trains)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        _replace_statistics(norm, *moments[norm].mean_and_variance())


@torch.no_grad()
def _replace_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Other statistics, and weight and bias with which it computes the same."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    norm.bias.add_((mean - norm.running_mean) * scale)
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


class _Moments:
    """Mean and variance of each channel over all that a layer is given."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sums = torch.zeros(2, channels, dtype=torch.float64)

    def add(self, _: nn.Module, given: tuple[Tensor]) -> None:
        features = given[0].double()
        self._count += features.numel() // features.shape[1]
        self._sums += torch.stack([features.sum((0, 2, 3)), features.square().sum((0, 2, 3))])

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean, square = self._sums / self._count
        return mean.float(), (square - mean.square()).clamp(min=0).float()


def _is_fixed(norm: nn.BatchNorm2d) -> bool:
    return isinstance(norm, FixedBatchNorm2d) and norm.fixed


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
