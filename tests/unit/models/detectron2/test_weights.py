from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from maskserve.core import Preprocess
from maskserve.models import ResNetDesign, ResNetMaskRcnn, translate_detectron2_state
from maskserve.models.detectron2 import is_detectron2_state
from maskserve.models.detectron2.weights import add_levels, translate_to_detectron2

NAMES = {
    "backbone.bottom_up.stem.conv1.weight": "backbone.body.conv1.weight",
    "backbone.bottom_up.stem.conv1.norm.running_var": "backbone.body.bn1.running_var",
    "backbone.bottom_up.res2.0.shortcut.weight": "backbone.body.layer1.0.downsample.0.weight",
    "backbone.bottom_up.res2.0.shortcut.norm.bias": "backbone.body.layer1.0.downsample.1.bias",
    "backbone.bottom_up.res4.22.conv3.weight": "backbone.body.layer3.22.conv3.weight",
    "backbone.bottom_up.res5.1.conv2.norm.weight": "backbone.body.layer4.1.bn2.weight",
    "backbone.fpn_lateral2.weight": "backbone.fpn.inner_blocks.0.0.weight",
    "backbone.fpn_output5.norm.weight": "backbone.fpn.layer_blocks.3.1.weight",
    "proposal_generator.rpn_head.conv.bias": "rpn.head.conv.0.0.bias",
    "proposal_generator.rpn_head.objectness_logits.weight": "rpn.head.cls_logits.weight",
    "proposal_generator.rpn_head.anchor_deltas.bias": "rpn.head.bbox_pred.bias",
    "roi_heads.mask_head.mask_fcn1.weight": "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_head.mask_fcn4.norm.bias": "roi_heads.mask_head.3.1.bias",
    "roi_heads.mask_head.deconv.weight": "roi_heads.mask_predictor.conv5_mask.weight",
}


@pytest.mark.parametrize("theirs", NAMES)
def test_names_are_those_of_torchvision(theirs: str) -> None:
    assert list(translate_detectron2_state({theirs: torch.zeros(1)})) == [NAMES[theirs]]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("fc1", "fc2"), ("fc6", "fc7")),
        (("fc1",), ("1",)),
        (("conv1", "conv2", "fc1"), ("0.0", "1.0", "3")),
        (("conv1", "fc1", "fc2"), ("0.0", "2", "4")),
    ],
)
def test_layers_of_box_heads_find_their_places(
    layers: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    box = "roi_heads.box_head"
    state = {f"{box}.{layer}.weight": torch.zeros(1) for layer in layers}
    assert list(translate_detectron2_state(state)) == [f"{box}.{name}.weight" for name in expected]


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((8,), {"conv.weight", "conv.bias"}),
        ((8, 8), {f"conv.conv{n}.{leaf}" for n in (0, 1) for leaf in ("weight", "bias")}),
    ],
)
def test_a_single_convolution_before_proposals_has_no_number(
    widths: tuple[int, ...], expected: set[str]
) -> None:
    design = ResNetDesign(
        stem_channels=8, first_channels=16, group_width=4, fpn_channels=8, rpn_channels=widths
    )
    theirs = translate_to_detectron2(ResNetMaskRcnn(design, 1, Preprocess()).state_dict())
    start = "proposal_generator.rpn_head."
    assert {
        name.removeprefix(start) for name in theirs if name.startswith(f"{start}conv")
    } == expected


def test_background_comes_first_in_torchvision() -> None:
    scores, deltas = torch.arange(3.0), torch.arange(8.0)
    found = translate_detectron2_state(
        {
            "roi_heads.box_predictor.cls_score.weight": scores[:, None],
            "roi_heads.box_predictor.cls_score.bias": scores,
            "roi_heads.box_predictor.bbox_pred.bias": deltas,
            "roi_heads.mask_head.predictor.bias": torch.tensor([5.0, 6.0]),
        }
    )
    assert found["roi_heads.box_predictor.cls_score.bias"].tolist() == [2, 0, 1]
    assert found["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [0] * 4 + deltas.tolist()
    assert found["roi_heads.mask_predictor.mask_fcn_logits.bias"].tolist() == [0, 5, 6]


def test_class_agnostic_heads_say_the_same_for_every_class() -> None:
    found = translate_detectron2_state(
        {
            "roi_heads.box_predictor.cls_score.weight": torch.zeros(4, 2),
            "roi_heads.box_predictor.bbox_pred.weight": torch.arange(8.0).view(4, 2),
            "roi_heads.mask_head.predictor.weight": torch.full((1, 2, 1, 1), 3.0),
        }
    )
    deltas = found["roi_heads.box_predictor.bbox_pred.weight"].view(4, 4, 2)
    assert torch.equal(deltas[0], torch.zeros(4, 2))
    assert all(torch.equal(of_class, torch.arange(8.0).view(4, 2)) for of_class in deltas[1:])
    masks = found["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    assert masks[:, 0, 0, 0].tolist() == [0, 3, 3, 3]


def test_what_old_checkpoints_hold_besides_is_left_out() -> None:
    state = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "mine": torch.zeros(1),
    }
    assert list(translate_detectron2_state(state)) == ["mine"]


norms = st.sampled_from(("", "BN", "GN"))
designs = st.builds(
    ResNetDesign,
    stem_channels=st.just(32),
    first_channels=st.just(128),
    group_width=st.just(32),
    fpn_channels=st.just(32),
    norm=norms,
    fpn_norm=norms,
    rpn_channels=st.sampled_from(((32,), (32, 8))),
    box_grid=st.just(2),
    box_channels=st.sampled_from(((), (32,), (32, 32))),
    box_features=st.sampled_from(((8,), (8, 8), (8, 8, 8))),
    box_norm=norms,
    mask_channels=st.sampled_from(((), (32,), (32, 32))),
    mask_features=st.just(8),
    mask_norm=norms,
)


@settings(max_examples=15)
@given(design=designs, classes=st.integers(1, 3))
def test_all_weights_go_there_and_back(design: ResNetDesign, classes: int) -> None:
    ours = ResNetMaskRcnn(design, classes, Preprocess()).state_dict()
    for name in ("box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits"):
        for leaf in ("weight", "bias"):  # what is said of the background is not kept
            values = ours[f"roi_heads.{name}.{leaf}"]
            values[: len(values) // (classes + 1)] = 0

    theirs = translate_to_detectron2(ours)
    back = translate_detectron2_state(theirs)

    assert is_detectron2_state(theirs)
    assert not is_detectron2_state(ours)
    assert not any(".body." in name or ".inner_blocks." in name for name in theirs)
    counted = {name for name in ours if name.endswith("num_batches_tracked")}
    assert set(back) == set(ours) - counted
    assert all(torch.equal(back[name], ours[name]) for name in back)


def averaging(laterals: list[nn.Module], outputs: list[nn.Module], x: list[Tensor]) -> list[Tensor]:
    """A pyramid as Detectron2 computes it with ``FUSE_TYPE: avg``."""
    inner = laterals[-1](x[-1])
    levels = [outputs[-1](inner)]
    for level in range(len(x) - 2, -1, -1):
        above = nn.functional.interpolate(inner, scale_factor=2.0, mode="nearest")
        inner = (laterals[level](x[level]) + above) / 2
        levels.insert(0, outputs[level](inner))
    return levels


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d, lambda width: nn.GroupNorm(2, width)])
def test_averaged_levels_become_sums_without_losing_a_digit(norm: type[nn.Module] | None) -> None:
    torch.manual_seed(0)
    pyramid = FeaturePyramidNetwork([3, 3, 3, 3], 4, norm_layer=norm).eval()
    for layer in pyramid.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    features = [torch.randn(1, 3, 32 >> level, 32 >> level) for level in range(4)]
    expected = averaging(list(pyramid.inner_blocks), list(pyramid.layer_blocks), features)
    state = {f"backbone.fpn.{name}": tensor for name, tensor in pyramid.state_dict().items()}

    added = translate_detectron2_state(add_levels(translate_to_detectron2(state)))
    pyramid.load_state_dict(
        {name.removeprefix("backbone.fpn."): tensor for name, tensor in added.items()},
        strict=False,
    )

    with torch.no_grad():
        named = OrderedDict((str(level), x) for level, x in enumerate(features))
        found = list(pyramid(named).values())
    for level in range(4):
        torch.testing.assert_close(found[level], expected[level], rtol=1e-6, atol=1e-6)
