from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskserve.core import Preprocess
from maskserve.core.errors import ParameterError
from maskserve.models import MODELS, build_model, initialise
from maskserve.models.backbones import FixedBatchNorm2d
from maskserve.models.checkpoint import read_weights, write_weights


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
