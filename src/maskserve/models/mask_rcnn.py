"""Mask R-CNN from torchvision's detection machinery.

He et al., Mask R-CNN, https://arxiv.org/abs/1703.06870. Proposals, matching, sampling, losses
and NMS are torchvision's; here is only what makes the light model, designed for CPUs.
See ``resnet`` for the other family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import Conv2dNormActivation

from maskserve.core.manifest import Preprocess
from maskserve.models.backbones import MobileNetFpn
from maskserve.models.pyramid import RowPool

__all__ = [
    "LightBoxHead",
    "LightDesign",
    "LightMaskRcnn",
    "SeparableRpnHead",
    "build_light",
    "transform_options",
]

# torchvision can resize inside the model; here photos arrive resized, by the preprocessing that
# serving uses too.
_RESIZED_OUTSIDE: dict[str, Any] = {"_skip_resize": True, "min_size": 640, "max_size": 1333}


@dataclass(frozen=True, slots=True)
class LightDesign:
    """Sizes of a light model's parts; the defaults suit some ten objects a photo.

    Attributes:
        first_stride: Of the finest pyramid level, 4 or 8. The finest level costs as much as all
            others together, and serves objects of less than some 30 px.
        channels: Width of every pyramid level.
        anchor_sizes_px: One a pyramid level, strides ``first_stride`` to 64. Smaller than the
            standard ones: photos are served at lower resolution, so objects are smaller.
        proposals: Boxes that reach the box head at test time. More of them find more in crowds.
        train_proposals: Boxes of a photo that those to learn from are drawn from; None for four
            times ``proposals``.
        sampled_boxes: Proposals of a photo that the box head learns from in a step.
        box_channels: The 7x7 features of a box are reduced to these before they are flattened.
        box_features: Width of the two fully connected layers.
        mask_channels: Width of each 3x3 convolution of the mask head.
        voting_iou: A box that is found becomes the mean of all boxes of its class with this IoU
            or more, weighted by their scores, before its mask is made. 1 leaves boxes alone.
            Source: Gidaris and Komodakis, https://arxiv.org/abs/1505.01749.
    """

    first_stride: Literal[4, 8] = 4
    channels: int = 128
    anchor_sizes_px: tuple[int, ...] = (24, 48, 96, 192, 384)
    proposals: int = 150
    train_proposals: int | None = None
    sampled_boxes: int = 128
    box_channels: int = 64
    box_features: int = 512
    mask_channels: tuple[int, ...] = (96, 96, 96, 96)
    voting_iou: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.voting_iou <= 1:
            raise ValueError(f"voting_iou lies above 0 and up to 1, not at {self.voting_iou}")
        levels = 5 if self.first_stride == 4 else 4
        if len(self.anchor_sizes_px) != levels:
            raise ValueError(
                f"strides {self.first_stride} to 64 are {levels} levels, which take as many "
                f"anchor_sizes_px, not {len(self.anchor_sizes_px)}"
            )


class SeparableRpnHead(nn.Module):
    """Region proposals with a depthwise separable 3x3 instead of a full one.

    No batch norm: the head is shared by all levels, whose statistics differ.

    Args:
        channels: Width of the pyramid.
        anchors: Anchors at each position.
    """

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(inplace=True),
        )
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, anchors * 4, 1)
        for layer in (self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (B, A, h, w) and box deltas (B, 4A, h, w) of each level."""
        hidden = [self.conv(feature) for feature in features]
        return [self.cls_logits(h) for h in hidden], [self.bbox_pred(h) for h in hidden]


class LightBoxHead(nn.Sequential):
    """Features of a box: 1x1 convolution to few channels, then two fully connected layers."""

    def __init__(self, channels: int, *, reduced: int, features: int, grid: int = 7) -> None:
        super().__init__(
            Conv2dNormActivation(channels, reduced, kernel_size=1, norm_layer=None),
            nn.Flatten(),
            nn.Linear(reduced * grid * grid, features),
            nn.ReLU(inplace=True),
            nn.Linear(features, features),
            nn.ReLU(inplace=True),
        )


class LightMaskRcnn(MaskRCNN):  # type: ignore[misc]
    """torchvision's, which also knows how its boxes are refined at test time.

    Attributes:
        voting_iou: See :class:`LightDesign`. Heeded by
            :class:`maskserve.models.InferenceNetwork`, not by torchvision's own ``forward``.
    """

    def __init__(self, backbone: nn.Module, *, design: LightDesign, **parts: Any) -> None:
        super().__init__(backbone, **parts)
        self.voting_iou = design.voting_iou


def transform_options(preprocess: Preprocess) -> dict[str, Any]:
    """Arguments of torchvision's detection models for photos that arrive resized."""
    return {
        # torchvision works on 0..1, the manifest on 0..255.
        "image_mean": [value / 255 for value in preprocess.mean],
        "image_std": [value / 255 for value in preprocess.std],
        **_RESIZED_OUTSIDE,
    }


def build_light(
    backbone: MobileNetFpn, classes: int, preprocess: Preprocess, design: LightDesign
) -> LightMaskRcnn:
    """Mask R-CNN designed for CPUs as a whole: every part after the backbone is light too."""
    channels = backbone.out_channels
    ratios = (0.5, 1.0, 2.0)
    anchors = AnchorGenerator(
        tuple((size,) for size in design.anchor_sizes_px), (ratios,) * len(design.anchor_sizes_px)
    )
    mask_width = design.mask_channels[-1]
    model = LightMaskRcnn(
        backbone,
        design=design,
        rpn_anchor_generator=anchors,
        rpn_head=SeparableRpnHead(channels, len(ratios)),
        rpn_pre_nms_top_n_train=1000,
        rpn_post_nms_top_n_train=design.train_proposals or 4 * design.proposals,
        rpn_pre_nms_top_n_test=2 * design.proposals,
        rpn_post_nms_top_n_test=design.proposals,
        box_roi_pool=RowPool(7),
        box_head=LightBoxHead(channels, reduced=design.box_channels, features=design.box_features),
        box_predictor=FastRCNNPredictor(design.box_features, classes + 1),
        box_batch_size_per_image=design.sampled_boxes,
        mask_roi_pool=RowPool(14),
        mask_head=MaskRCNNHeads(channels, design.mask_channels, 1),
        mask_predictor=MaskRCNNPredictor(mask_width, mask_width, classes + 1),
        **transform_options(preprocess),
    )
    _initialise_objectness(model)
    return model


def _initialise_objectness(model: MaskRCNN, prior: float = 0.01) -> None:
    """Start from "almost nothing is an object", so that first losses do not shake the backbone.

    Source: Lin et al., Focal Loss, section 4.1, https://arxiv.org/abs/1708.02002.
    """
    bias = -torch.logit(torch.tensor(1 - prior))
    nn.init.constant_(model.rpn.head.cls_logits.bias, float(bias))
