"""Mask R-CNN with a ResNet and the standard pyramid, in all sizes that Detectron2 knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import Bottleneck
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from maskserve.core.manifest import Preprocess
from maskserve.models.backbones import FixedBatchNorm2d
from maskserve.models.mask_rcnn import transform_options
from maskserve.models.pyramid import ExactAnchors, RoiPool

__all__ = ["Norm", "ResNetDesign", "ResNetMaskRcnn"]

Norm = Literal["", "BN", "GN"]
"""None, batch norm with fixed statistics, or group norm of 32 groups."""

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": FixedBatchNorm2d,
    "GN": partial(nn.GroupNorm, 32),
}


@dataclass(frozen=True, slots=True)
class ResNetDesign:
    """Sizes and numbers of a Mask R-CNN with a ResNet.

    The defaults are the paper's network, with the box features of torchvision's: weights of
    torchvision's ResNets and of its COCO Mask R-CNN fit.

    Attributes:
        depth: Layers of the ResNet.
        groups: Of the 3x3 convolutions; more than one make a ResNeXt.
        group_width: Channels of a group in the first stage.
        stem_channels: Width of the first convolution.
        first_channels: Width of the first stage's output, at stride 4; each later one doubles it.
        stride_in_1x1: Whether a stage's first block strides in its first convolution, as in
            the ResNet paper, rather than in the 3x3 one.
        norm: Of the ResNet.
        fpn_channels: Width of every pyramid level.
        fpn_norm: Of the pyramid's convolutions.
        anchor_sizes_px: For each of the strides 4 to 64.
        aspect_ratios: Heights over widths, for each of these strides.
        anchor_offset: Shift of the anchors as a share of the stride.
        rpn_channels: Widths of the 3x3 convolutions before proposals.
        rpn_box_weights: Scales of the proposals' box deltas.
        candidates: Boxes of each level that enter the proposals' NMS at test time.
        proposals: Boxes that reach the box head at test time.
        sampled_boxes: Proposals of a photo that the heads learn from in a step.
        proposal_nms_iou: Of two proposals that overlap by more, the weaker one goes.
        min_proposal_px: Proposals with a shorter side are dropped.
        nms_iou: As ``proposal_nms_iou``, for detections of a class.
        box_weights: Scales of the detections' box deltas.
        box_grid: Cells on a side that a box is pooled to.
        box_sampling: Samples on a side of a cell; 0 for as many as there are features.
        box_aligned: Whether RoIAlign shifts by half a pixel (``ROIAlignV2``).
        box_channels: Widths of the box head's 3x3 convolutions.
        box_features: Widths of its fully connected layers.
        box_norm: Of its convolutions.
        mask_grid, mask_sampling, mask_aligned: As those of the box head.
        mask_channels: Widths of the mask head's 3x3 convolutions.
        mask_features: Width of the transposed convolution behind them.
        mask_norm: Of its 3x3 convolutions.
    """

    depth: Literal[50, 101, 152] = 50
    groups: int = 1
    group_width: int = 64
    stem_channels: int = 64
    first_channels: int = 256
    stride_in_1x1: bool = False
    norm: Norm = "BN"
    fpn_channels: int = 256
    fpn_norm: Norm = ""
    anchor_sizes_px: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    anchor_offset: float = 0.0
    rpn_channels: tuple[int, ...] = (256,)
    rpn_box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    candidates: int = 1000
    proposals: int = 1000
    sampled_boxes: int = 512
    proposal_nms_iou: float = 0.7
    min_proposal_px: float = 0.0
    nms_iou: float = 0.5
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    box_grid: int = 7
    box_sampling: int = 2
    box_aligned: bool = False
    box_channels: tuple[int, ...] = ()
    box_features: tuple[int, ...] = (1024, 1024)
    box_norm: Norm = ""
    mask_grid: int = 14
    mask_sampling: int = 2
    mask_aligned: bool = False
    mask_channels: tuple[int, ...] = (256, 256, 256, 256)
    mask_features: int = 256
    mask_norm: Norm = ""

    @property
    def name(self) -> str:
        """Such as ``resnet50`` or ``resnext101_32x8d``."""
        if self.groups == 1:
            return f"resnet{self.depth}"
        return f"resnext{self.depth}_{self.groups}x{self.group_width}d"


class ResNetMaskRcnn(MaskRCNN):  # type: ignore[misc]
    """A Mask R-CNN with random weights; layers are named as in torchvision's models.

    Args:
        design: Its sizes.
        classes: Number of classes without the background.
        preprocess: Gives the normalisation.

    Attributes:
        design: As given.
    """

    def __init__(self, design: ResNetDesign, classes: int, preprocess: Preprocess) -> None:
        anchors = ExactAnchors(
            design.anchor_sizes_px, design.aspect_ratios, offset=design.anchor_offset
        )
        pooled = (design.fpn_channels, *design.box_channels)[-1] * design.box_grid**2
        box_width = (pooled, *design.box_features)[-1]
        mask_width = (design.fpn_channels, *design.mask_channels)[-1]
        super().__init__(
            _backbone(design),
            rpn_anchor_generator=anchors,
            rpn_head=_rpn_head(design, anchors.num_anchors_per_location()[0]),
            rpn_pre_nms_top_n_test=design.candidates,
            rpn_post_nms_top_n_test=design.proposals,
            rpn_nms_thresh=design.proposal_nms_iou,
            box_roi_pool=RoiPool(
                design.box_grid, sampling_ratio=design.box_sampling, aligned=design.box_aligned
            ),
            box_head=_box_head(design),
            box_predictor=FastRCNNPredictor(box_width, classes + 1),
            box_nms_thresh=design.nms_iou,
            box_batch_size_per_image=design.sampled_boxes,
            bbox_reg_weights=design.box_weights,
            mask_roi_pool=RoiPool(
                design.mask_grid, sampling_ratio=design.mask_sampling, aligned=design.mask_aligned
            ),
            mask_head=MaskRCNNHeads(
                design.fpn_channels,
                design.mask_channels,
                1,
                norm_layer=_NORMS.get(design.mask_norm),
            ),
            mask_predictor=MaskRCNNPredictor(mask_width, design.mask_features, classes + 1),
            **transform_options(preprocess),
        )
        self.design = design
        self.rpn.box_coder = BoxCoder(weights=design.rpn_box_weights)
        # Not quite 0: a box without any area has no deltas to learn.
        self.rpn.min_size = max(design.min_proposal_px, 1e-6)


def _backbone(design: ResNetDesign) -> BackboneWithFPN:
    return BackboneWithFPN(
        _body(design),
        return_layers={f"layer{stage}": str(stage - 1) for stage in range(1, 5)},
        in_channels_list=[design.first_channels << stage for stage in range(4)],
        out_channels=design.fpn_channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=_NORMS.get(design.fpn_norm),
    )


def _body(design: ResNetDesign) -> nn.Sequential:
    """The ResNet without its classifier; torchvision's names."""
    norm = _NORMS.get(design.norm, nn.Identity)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, design.stem_channels, 7, stride=2, padding=3, bias=False),
        bn1=norm(design.stem_channels),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    width = design.stem_channels
    for stage, count in enumerate(_BLOCKS[design.depth]):
        blocks = []
        for index in range(count):
            stride = 2 if stage and index == 0 else 1
            blocks.append(_block(design, norm, inputs=width, stage=stage, stride=stride))
            width = design.first_channels << stage
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    body = nn.Sequential(layers)
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(layer, Bottleneck) and isinstance(layer.bn3, (nn.BatchNorm2d, nn.GroupNorm)):
            # Started at random, blocks that begin as the identity do without batch statistics
            # (Zhang et al., Fixup, 1901.09321); pretrained weights replace the zeros.
            nn.init.zeros_(layer.bn3.weight)
    return body


def _block(
    design: ResNetDesign,
    norm: Callable[[int], nn.Module],
    *,
    inputs: int,
    stage: int,
    stride: int,
) -> Bottleneck:
    outputs = design.first_channels << stage
    shortcut = None
    if inputs != outputs:
        conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        shortcut = nn.Sequential(conv, norm(outputs))
    planes = outputs // Bottleneck.expansion
    block = Bottleneck(
        inputs,
        planes,
        stride,
        shortcut,
        groups=design.groups,
        # torchvision counts the width of a group from 64 channels up.
        base_width=64 * (design.group_width << stage) / planes,
        norm_layer=norm,
    )
    if design.stride_in_1x1:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return block


def _rpn_head(design: ResNetDesign, anchors: int) -> RPNHead:
    width = design.rpn_channels[-1]
    head = RPNHead(width, anchors)
    inputs = (design.fpn_channels, *design.rpn_channels)
    head.conv = nn.Sequential(
        *(
            Conv2dNormActivation(before, after, norm_layer=None)
            for before, after in zip(inputs, design.rpn_channels, strict=False)
        )
    )
    for conv, _ in head.conv:
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
    return head


def _box_head(design: ResNetDesign) -> nn.Module:
    head: nn.Module
    if not design.box_channels and len(design.box_features) == 2:
        head = TwoMLPHead(design.fpn_channels * design.box_grid**2, design.box_features[0])
        head.fc7 = nn.Linear(*design.box_features)
    else:
        head = FastRCNNConvFCHead(
            (design.fpn_channels, design.box_grid, design.box_grid),
            list(design.box_channels),
            list(design.box_features),
            norm_layer=_NORMS.get(design.box_norm),
        )
    return head
