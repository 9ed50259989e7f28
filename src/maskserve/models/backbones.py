"""Feature extractors with a feature pyramid, from torchvision's classification networks."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models import MobileNetV2, mobilenet_v2, resnet50, resnet101
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

__all__ = ["FixedBatchNorm2d", "MobileNetFpn", "mobilenet_v2_fpn", "resnet_fpn", "separable_conv"]

_RESNETS = {"resnet50": resnet50, "resnet101": resnet101}

# Last block of each stride in torchvision's mobilenet_v2, and its channels. The final 1x1
# convolution to 1280 channels belongs to the classifier and is left out.
_MOBILENET_STAGES = OrderedDict([(3, ("0", 24)), (6, ("1", 32)), (13, ("2", 96)), (17, ("3", 320))])


class FixedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that keeps the statistics it was loaded with; scale and shift are trained.

    Batches of two to four photos are too small to estimate statistics. torchvision's
    FrozenBatchNorm2d serves the same end, but as separate multiplications and additions, which
    made a training step on CPUs a third slower.
    """

    def train(self, mode: bool = True) -> FixedBatchNorm2d:  # noqa: ARG002
        return super().train(False)


def separable_conv(channels: int) -> nn.Sequential:
    """Depthwise 3x3, then pointwise, each with batch norm; an eighth of a 3x3's work.

    Source: Howard et al., MobileNets, https://arxiv.org/abs/1704.04861.
    """
    return nn.Sequential(
        Conv2dNormActivation(channels, channels, groups=channels),
        Conv2dNormActivation(channels, channels, kernel_size=1, activation_layer=None),
    )


class MobileNetFpn(nn.Module):
    """MobileNetV2 at strides 4 to 32 with a narrow, depthwise separable feature pyramid.

    A standard pyramid of 256 channels costs several times what MobileNetV2 itself does; with
    ``channels`` of 128 and separable output convolutions it costs less than half of it.

    Args:
        body: torchvision's MobileNetV2.
        channels: Width of every pyramid level.
    """

    def __init__(self, body: MobileNetV2, *, channels: int) -> None:
        super().__init__()
        self.body = body.features[: max(_MOBILENET_STAGES) + 1]
        self.fpn = FeaturePyramidNetwork(
            [width for _, width in _MOBILENET_STAGES.values()],
            channels,
            extra_blocks=LastLevelMaxPool(),
        )
        for level in range(len(_MOBILENET_STAGES)):
            self.fpn.layer_blocks[level] = separable_conv(channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by level: "0" to "3" at strides 4 to 32, and "pool" at 64."""
        stages: OrderedDict[str, Tensor] = OrderedDict()
        for index, block in enumerate(self.body):
            x = block(x)
            if index in _MOBILENET_STAGES:
                stages[_MOBILENET_STAGES[index][0]] = x
        features: dict[str, Tensor] = self.fpn(stages)
        return features


def mobilenet_v2_fpn(*, channels: int) -> MobileNetFpn:
    """MobileNetV2 with random weights and fixed batch norm."""
    return MobileNetFpn(mobilenet_v2(norm_layer=FixedBatchNorm2d), channels=channels)


def resnet_fpn(name: str) -> BackboneWithFPN:
    """``resnet50`` or ``resnet101`` with the standard pyramid of 256 channels; random weights."""
    body = _RESNETS[name](norm_layer=FixedBatchNorm2d)
    return BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": str(stage - 1) for stage in range(1, 5)},
        in_channels_list=[256 * 2**stage for stage in range(4)],
        out_channels=256,
        extra_blocks=LastLevelMaxPool(),
    )
