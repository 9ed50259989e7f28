from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from maskserve.core import Preprocess
from maskserve.core.errors import ParameterError
from maskserve.models import ResNetDesign, ResNetMaskRcnn, build_model

NARROW = ResNetDesign(
    stem_channels=8,
    first_channels=16,
    group_width=4,
    fpn_channels=16,
    rpn_channels=(16, 8),
    box_channels=(8,),
    box_features=(12,),
    mask_channels=(8,),
    mask_features=6,
)


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_weights_of_torchvision_fit() -> None:
    theirs = shapes(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91))
    ours = shapes(build_model("resnet50", classes=90, preprocess=Preprocess()))
    assert ours == theirs


@pytest.mark.parametrize("in_1x1", [False, True])
def test_stride_lies_where_the_design_says(in_1x1: bool) -> None:
    model = ResNetMaskRcnn(replace(NARROW, stride_in_1x1=in_1x1), 1, Preprocess())
    first, second = model.backbone.body.layer2[0], model.backbone.body.layer2[1]
    assert first.conv1.stride == ((2, 2) if in_1x1 else (1, 1))
    assert first.conv2.stride == ((1, 1) if in_1x1 else (2, 2))
    assert second.conv1.stride == second.conv2.stride == (1, 1)


def test_resnext_has_groups_that_grow_with_the_stages() -> None:
    design = replace(NARROW, groups=4, group_width=6)
    model = ResNetMaskRcnn(design, 1, Preprocess())
    conv = model.backbone.body.layer3[0].conv2
    assert (conv.groups, conv.in_channels) == (4, 4 * 6 * 4)
    assert design.name == "resnext50_4x6d"


@pytest.mark.parametrize("aligned", [False, True])
def test_every_size_is_that_of_the_design_and_learns(aligned: bool) -> None:
    design = replace(NARROW, box_aligned=aligned, mask_aligned=aligned, box_sampling=0)
    model = ResNetMaskRcnn(design, 2, Preprocess()).train()
    box = torch.tensor([[10.0, 10, 50, 50]])
    mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
    mask[:, 10:50, 10:50] = 1
    target = {"boxes": box, "labels": torch.tensor([2]), "masks": mask}

    losses = model([torch.rand(3, 96, 96)], [target])
    total: Any = torch.stack(list(losses.values())).sum()
    total.backward()

    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []
    assert model.rpn.head.conv[1][0].out_channels == 8
    assert model.roi_heads.box_predictor.cls_score.in_features == 12
    assert model.roi_heads.mask_predictor.mask_fcn_logits.weight.shape[:2] == (3, 6)


def test_a_design_of_a_resnet_makes_no_light_model() -> None:
    with pytest.raises(ParameterError, match="does not apply to mobilenet_v2"):
        build_model("mobilenet_v2", classes=1, preprocess=Preprocess(), design=NARROW)
    assert build_model("resnet50", classes=1, preprocess=Preprocess(), design=NARROW).design is (
        NARROW
    )
