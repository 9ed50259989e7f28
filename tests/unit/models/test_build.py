from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torchvision.models import mobilenet_v2
from torchvision.models.detection.image_list import ImageList

from maskserve.core import Preprocess
from maskserve.core.errors import ParameterError
from maskserve.models import MODELS, build_model, initialise
from maskserve.models.backbones import (
    FixedBatchNorm2d,
    fold_norms,
    learn_statistics,
    mobilenet_v2_fpn,
)
from maskserve.models.checkpoint import read_weights, write_weights
from maskserve.models.mask_rcnn import LightDesign


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match="Did you mean “resnet50”"):
        build_model("resnet5", classes=1, preprocess=Preprocess())


@pytest.mark.parametrize("name", MODELS)
def test_backbone_statistics_stay_fixed_in_training(name: str) -> None:
    model = build_model(name, classes=1, preprocess=Preprocess()).train()
    layers = [layer for layer in model.modules() if isinstance(layer, FixedBatchNorm2d)]
    before = [layer.running_mean.clone() for layer in layers if layer.running_mean is not None]
    model.backbone(torch.rand(2, 3, 64, 64))
    after = [layer.running_mean for layer in layers]
    assert len(before) == len(layers) > 20
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True) if b is not None)


def test_a_resnet_may_learn_its_statistics() -> None:
    model = build_model("resnet50", classes=1, preprocess=Preprocess())
    learn_statistics(model)
    stem = model.backbone.body.bn1
    model.train().backbone(torch.rand(2, 3, 64, 64))
    learnt = stem.running_mean.clone()
    assert learnt.any()
    model.eval().backbone(torch.rand(2, 3, 64, 64))
    assert torch.equal(stem.running_mean, learnt)


def test_norms_that_convolutions_took_in_cannot_learn() -> None:
    backbone = mobilenet_v2_fpn(channels=32)
    learn_statistics(backbone.body)
    folded = [m for m in backbone.body.modules() if isinstance(m, FixedBatchNorm2d)]
    backbone.train()(torch.rand(1, 3, 64, 64))
    assert folded
    assert not any(norm.running_mean.any() for norm in folded if norm.running_mean is not None)


def test_a_deeper_backbone_starts_from_a_shallower_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shallow = build_model("resnet50", classes=1, preprocess=Preprocess())
    write_weights(tmp_path / "shallow.safetensors", shallow.state_dict())
    deep = build_model("resnet101", classes=1, preprocess=Preprocess())
    told = initialise(deep, "resnet101", str(tmp_path / "shallow.safetensors"))
    assert told.endswith("tensors of the backbone")
    # Blocks that it adds begin as the identity, so it computes the same.
    pixels = torch.rand(1, 3, 64, 64)
    expected, found = shallow.eval().backbone(pixels), deep.eval().backbone(pixels)
    for level, features in expected.items():
        torch.testing.assert_close(found[level], features)


def _shake_norms(module: torch.nn.Module) -> None:
    """Give every batch norm statistics and parameters of its own, unlike any default."""
    torch.manual_seed(0)
    for norm in [m for m in module.modules() if isinstance(m, FixedBatchNorm2d)]:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        torch.nn.init.normal_(norm.running_mean, std=0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.normal_(norm.bias, std=0.2)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)


def test_folded_norms_compute_and_learn_the_same() -> None:
    plain = mobilenet_v2(norm_layer=FixedBatchNorm2d)
    folded = mobilenet_v2(norm_layer=FixedBatchNorm2d)
    _shake_norms(plain)
    fold_norms(folded)
    folded.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 3, 64, 96)
    expected, found = plain.features(pixels), folded.features(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    expected.square().mean().backward()
    found.square().mean().backward()

    learnt = dict(folded.named_parameters())
    for name, parameter in plain.features.named_parameters(prefix="features"):
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(learnt[name].grad, parameter.grad, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize(("first_stride", "levels"), [(4, 5), (8, 4)])
def test_pyramid_begins_at_its_first_stride(first_stride: Literal[4, 8], levels: int) -> None:
    backbone = mobilenet_v2_fpn(channels=32, first_stride=first_stride)
    shapes = [tuple(level.shape) for level in backbone(torch.rand(1, 3, 128, 192)).values()]
    assert shapes == [
        (1, 32, 128 // stride, 192 // stride)
        for stride in (first_stride << level for level in range(levels))
    ]


def test_design_sets_the_sizes() -> None:
    design = LightDesign(proposals=20, box_features=96, mask_channels=(32, 48), channels=64)
    model = build_model("mobilenet_v2", classes=2, preprocess=Preprocess(), design=design)
    model.eval()
    proposals, _ = model.rpn(
        ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)]),
        model.backbone(torch.rand(1, 3, 256, 256)),
    )
    assert len(proposals[0]) == 20
    assert model.roi_heads.box_predictor.cls_score.in_features == 96
    assert model.roi_heads.mask_head(torch.zeros(1, 64, 14, 14)).shape[1] == 48
    assert model.backbone.out_channels == 64


def test_designs_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="strides 8 to 64 are 4 levels, which take as many"):
        LightDesign(first_stride=8)
    with pytest.raises(ValueError, match="voting_iou lies above 0 and up to 1, not at 2"):
        LightDesign(voting_iou=2)
    with pytest.raises(ParameterError, match="a light design does not apply"):
        build_model("resnet50", classes=1, preprocess=Preprocess(), design=LightDesign())


def test_light_model_is_light() -> None:
    def parameters(name: str) -> int:
        model = build_model(name, classes=1, preprocess=Preprocess())
        return sum(parameter.numel() for parameter in model.parameters())

    assert parameters("mobilenet_v2") < parameters("resnet50") / 8


def test_whole_model_from_a_file_keeps_heads_of_other_size_random(tmp_path: Path) -> None:
    donor = build_model("mobilenet_v2", classes=2, preprocess=Preprocess())
    write_weights(tmp_path / "two.safetensors", donor.state_dict())
    model = build_model("mobilenet_v2", classes=5, preprocess=Preprocess())

    told = initialise(model, "mobilenet_v2", str(tmp_path / "two.safetensors"))

    assert torch.equal(model.backbone.body[0][0].weight, donor.backbone.body[0][0].weight)
    assert "roi_heads.box_predictor.cls_score.weight" in told
    assert "backbone" not in told


def test_backbone_from_a_file(tmp_path: Path) -> None:
    donor = build_model("mobilenet_v2", classes=2, preprocess=Preprocess())
    state = {f"features.{k}": v for k, v in donor.backbone.body.state_dict().items()}
    torch.save(state, tmp_path / "body.pth")
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess())

    assert initialise(model, "mobilenet_v2", str(tmp_path / "body.pth")) == "backbone from body.pth"

    assert torch.equal(
        model.backbone.body[17].conv[2].weight, donor.backbone.body[17].conv[2].weight
    )


def test_only_the_backbone_starts_from_a_model_with_another_pyramid(tmp_path: Path) -> None:
    donor = build_model("mobilenet_v2", classes=1, preprocess=Preprocess())
    donor.rpn.head.cls_logits.bias.data.fill_(3)  # a tensor of the same shape in both
    write_weights(tmp_path / "fine.safetensors", donor.state_dict())
    design = LightDesign(first_stride=8, channels=96, anchor_sizes_px=(32, 64, 128, 256))
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess(), design=design)
    head = {name: tensor.clone() for name, tensor in model.rpn.head.state_dict().items()}

    told = initialise(model, "mobilenet_v2", str(tmp_path / "fine.safetensors"))

    assert told == "backbone from fine.safetensors"
    assert torch.equal(
        model.backbone.body[17].conv[2].weight, donor.backbone.body[17].conv[2].weight
    )
    assert all(torch.equal(model.rpn.head.state_dict()[name], head[name]) for name in head)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "other.safetensors", {"stem.weight": torch.zeros(3)})
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess())
    with pytest.raises(ParameterError, match="does not fit this model"):
        initialise(model, "mobilenet_v2", str(tmp_path / "other.safetensors"))


def test_coco_start_exists_for_resnet50_only() -> None:
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess())
    with pytest.raises(ParameterError, match="no COCO Mask R-CNN for mobilenet_v2"):
        initialise(model, "mobilenet_v2", "coco")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code from the checkpoint ran",)


def test_pickled_code_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ParameterError, match="not a file of weights"):
        read_weights(tmp_path / "evil.pth")
    assert "code from the checkpoint ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_damaged_files_of_weights_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not weights at all")
    with pytest.raises(ParameterError, match=name):
        read_weights(tmp_path / name)


def test_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="There is no file of weights"):
        read_weights(tmp_path / "nowhere.pth")
