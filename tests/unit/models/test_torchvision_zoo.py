from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from maskserve.core.errors import DownloadError, ParameterError
from maskserve.models.torchvision_zoo import COCO, load_torchvision, modern_names

OLD_NAMES = {
    "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
    "backbone.fpn.inner_blocks.3.bias": "backbone.fpn.inner_blocks.3.0.bias",
    "backbone.fpn.layer_blocks.0.weight": "backbone.fpn.layer_blocks.0.0.weight",
    "roi_heads.mask_head.mask_fcn4.weight": "roi_heads.mask_head.3.0.weight",
}


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with layers named as they were before torchvision 0.13."""
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    state = model.state_dict()
    for old, new in OLD_NAMES.items():
        state[old] = state.pop(new)
    path = tmp_path_factory.mktemp("weights") / "three.pth"
    torch.save({"model": state, "epoch": 3}, path)
    return path


def test_coco_has_eighty_classes_with_their_own_ids() -> None:
    assert len(COCO) == 80
    assert COCO.id_of(COCO.index_of("person")) == 1
    assert COCO.id_of(COCO.index_of("toothbrush")) == 90
    assert COCO.id_of(COCO.index_of("stop sign")) == 13  # 12 is not used


def test_old_names_become_those_of_today() -> None:
    tensor = torch.zeros(1)
    same = ["rpn.head.cls_logits.weight", "backbone.fpn.layer_blocks.0.0.0.weight"]
    renamed = modern_names(dict.fromkeys([*OLD_NAMES, *same], tensor))
    assert list(renamed) == [*OLD_NAMES.values(), *same]


def test_classes_of_a_checkpoint_are_named_or_numbered(three_classes: Path) -> None:
    name = "maskrcnn_resnet50_fpn"
    numbered = load_torchvision(name, three_classes)
    assert numbered.categories.names == ("class_0", "class_1", "class_2")
    assert numbered.classes_from == "numbered"
    named = load_torchvision(name, three_classes, classes=["mug", "spoon", "plate"])
    assert named.categories.names == ("mug", "spoon", "plate")
    assert named.weights == "three.pth"
    with pytest.raises(ParameterError, match=r"has 3 classes beside the background.*are 2"):
        load_torchvision(name, three_classes, classes=["mug", "spoon"])


def test_a_checkpoint_of_the_other_model_is_refused(three_classes: Path) -> None:
    with pytest.raises(ParameterError, match=r"is of maskrcnn_resnet50_fpn, not"):
        load_torchvision("maskrcnn_resnet50_fpn_v2", three_classes)


def test_a_checkpoint_that_lacks_layers_is_refused(three_classes: Path, tmp_path: Path) -> None:
    state = torch.load(three_classes, weights_only=True)["model"]
    del state["backbone.body.conv1.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ParameterError, match=r"does not fit.*backbone.body.conv1.weight"):
        load_torchvision("maskrcnn_resnet50_fpn", tmp_path / "less.pth")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ParameterError, match=r"not a checkpoint of torchvision.*stem.weight"):
        load_torchvision("maskrcnn_resnet50_fpn", tmp_path / "other.pth")


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match="Did you mean “maskrcnn_resnet50_fpn”"):
        load_torchvision("maskrcnn_resnet50")


def test_without_internet_it_says_where_the_file_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    with pytest.raises(DownloadError, match=r"coco-bf2d0c1e.pth.*no route.*checkpoints"):
        load_torchvision("maskrcnn_resnet50_fpn")
