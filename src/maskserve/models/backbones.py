"""The light backbone with its feature pyramid, and batch norm with fixed statistics."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2, mobilenet_v2
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from maskserve.models.depthwise import halving_depthwise, trains_in_bfloat16

__all__ = [
    "FixedBatchNorm2d",
    "FoldedConv2d",
    "MobileNetFpn",
    "fold_norms",
    "learn_statistics",
    "mobilenet_v2_fpn",
    "separable_conv",
]

# Last block of each stride from 4 to 32 in torchvision's mobilenet_v2, and its channels. The final
# 1x1 convolution to 1280 channels belongs to the classifier and is left out.
_MOBILENET_STAGES = ((3, 24), (6, 32), (13, 96), (17, 320))


class FixedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that keeps the statistics it was loaded with; scale and shift are trained.

    Batches of two to four photos are too small to estimate statistics. torchvision's
    FrozenBatchNorm2d serves the same end, but as separate multiplications and additions, which
    made a training step on CPUs a third slower.
    """

    folded = False
    """Whether the convolution before it applies this norm already."""
    fixed = True
    """Whether the statistics stay; see :func:`learn_statistics`."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.eval()

    def train(self, mode: bool = True) -> FixedBatchNorm2d:
        return super().train(mode and not self.fixed)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return input if self.folded else super().forward(input)


class FoldedConv2d(nn.Conv2d):
    """A convolution that also applies the fixed batch norm behind it.

    Scaling the weights instead of the features computes the same and saves a pass over the
    features in either direction: a training step on CPUs takes a fifth less time. Parameters
    keep their places and names, so checkpoints fit with and without folding.

    Args:
        conv: Without bias; its weights are shared.
        norm: Does nothing from now on.
    """

    def __init__(self, conv: nn.Conv2d, norm: FixedBatchNorm2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            (conv.stride[0], conv.stride[1]),
            padding=(int(conv.padding[0]), int(conv.padding[1])),
            groups=conv.groups,
            bias=False,
        )
        self.weight = conv.weight
        norm.folded = True
        self._norm = (norm,)  # in a tuple: it stays registered where it was
        shape = (self.groups, self.kernel_size, self.stride, self.padding)
        self._halves = shape == (self.in_channels, (3, 3), (2, 2), (1, 1))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        (norm,) = self._norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        weight = self.weight * scale.view(-1, 1, 1, 1)
        if self._halves and trains_in_bfloat16(input):
            return halving_depthwise(input, weight, shift)
        folded: Tensor = self._conv_forward(input, weight, shift)
        return folded


def learn_statistics(module: nn.Module) -> None:
    """Let batch norms learn their statistics in training, for weights that start at random.

    Without any loaded statistics, keeping them would mean no normalisation at all. Norms that a
    convolution has taken in stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, FixedBatchNorm2d) and not layer.folded:
            layer.fixed = False


def fold_norms(module: nn.Module) -> None:
    """Replace every convolution that a fixed batch norm follows in a ``Sequential``."""
    for parent in [m for m in module.modules() if isinstance(m, nn.Sequential)]:
        for position, (conv, norm) in enumerate(pairwise(list(parent))):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FixedBatchNorm2d):
                parent[position] = FoldedConv2d(conv, norm)


def separable_conv(channels: int) -> nn.Sequential:
    """Depthwise 3x3, then pointwise, each with batch norm; an eighth of a 3x3's work.

    Source: Howard et al., MobileNets, https://arxiv.org/abs/1704.04861.
    """
    return nn.Sequential(
        Conv2dNormActivation(channels, channels, groups=channels),
        Conv2dNormActivation(channels, channels, kernel_size=1, activation_layer=None),
    )


class MobileNetFpn(nn.Module):
    """MobileNetV2 at strides up to 32 with a narrow, depthwise separable feature pyramid.

    A standard pyramid of 256 channels costs several times what MobileNetV2 itself does; with
    ``channels`` of 128 and separable output convolutions it costs less than half of it.

    Args:
        body: torchvision's MobileNetV2.
        channels: Width of every pyramid level.
        first_stride: Of the finest pyramid level.
    """

    def __init__(self, body: MobileNetV2, *, channels: int, first_stride: Literal[4, 8]) -> None:
        super().__init__()
        stages = _MOBILENET_STAGES if first_stride == 4 else _MOBILENET_STAGES[1:]
        self._level_after = {block: str(level) for level, (block, _) in enumerate(stages)}
        self.body = body.features[: max(self._level_after) + 1]
        self.fpn = FeaturePyramidNetwork(
            [width for _, width in stages], channels, extra_blocks=LastLevelMaxPool()
        )
        for level in range(len(stages)):
            self.fpn.layer_blocks[level] = separable_conv(channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by level: "0", "1", … from the first stride to 32, and "pool" at 64."""
        stages: OrderedDict[str, Tensor] = OrderedDict()
        for index, block in enumerate(self.body):
            x = block(x)
            if index in self._level_after:
                stages[self._level_after[index]] = x
        features: dict[str, Tensor] = self.fpn(stages)
        return features


def mobilenet_v2_fpn(*, channels: int, first_stride: Literal[4, 8] = 4) -> MobileNetFpn:
    """MobileNetV2 with random weights and fixed batch norm."""
    body = mobilenet_v2(norm_layer=FixedBatchNorm2d)
    fold_norms(body)
    return MobileNetFpn(body, channels=channels, first_stride=first_stride)
