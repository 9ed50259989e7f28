from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from maskserve.core import Postprocess, Preprocess
from maskserve.core.errors import ParameterError, SettingsError
from maskserve.models import ResNetDesign, ResNetMaskRcnn, load_detectron2, to_detectron2

PREPROCESS = Preprocess(channel_order="bgr", short_side_px=96, max_side_px=160)
POSTPROCESS = Postprocess(min_score=0.25, max_instances=9, mask_size=20)
NARROW = ResNetDesign(
    stem_channels=8,
    first_channels=16,
    group_width=4,
    fpn_channels=8,
    rpn_channels=(8,),
    box_features=(16, 16),
    mask_grid=10,
    mask_channels=(8,),
    mask_features=8,
)
Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def model() -> ResNetMaskRcnn:
    torch.manual_seed(0)
    return ResNetMaskRcnn(NARROW, 3, PREPROCESS)


def write(
    folder: Path, model: ResNetMaskRcnn, change: Change = dict.copy, dataset: str = "mine"
) -> tuple[Path, Path]:
    """Config and checkpoint of a model, the latter changed."""
    state, text = to_detectron2(model, preprocess=PREPROCESS, postprocess=POSTPROCESS)
    change(state)
    config, weights = folder / "config.yaml", folder / "model_final.pth"
    settings = yaml.safe_load(text) | {"DATASETS": {"TRAIN": [dataset], "TEST": []}}
    config.write_text(yaml.safe_dump(settings))
    torch.save({"model": state, "optimizer": {"lr": 0.1}, "iteration": 3}, weights)
    return config, weights


def test_a_model_comes_back_with_all_that_a_manifest_says(
    tmp_path: Path, model: ResNetMaskRcnn
) -> None:
    loaded = load_detectron2(*write(tmp_path, model), classes=["a", "b", "c"])

    assert loaded.classes == ("a", "b", "c")
    assert loaded.backbone == "resnet50"
    assert loaded.preprocess == PREPROCESS
    assert loaded.postprocess == POSTPROCESS
    assert loaded.config.design == loaded.model.design == NARROW
    assert not loaded.model.training
    own, found = model.state_dict(), loaded.model.state_dict()
    assert own.keys() == found.keys()
    different = {name for name in own if not torch.equal(own[name], found[name])}
    # What these say of the background is not kept; nobody asks them.
    assert different <= {
        f"roi_heads.{head}.{leaf}"
        for head in ("box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
        for leaf in ("weight", "bias")
    }


def test_pickle_of_arrays_gives_the_same_model(tmp_path: Path, model: ResNetMaskRcnn) -> None:
    config, weights = write(tmp_path, model)
    state = torch.load(weights)["model"]
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    zoo = tmp_path / "model.pkl"
    zoo.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))

    from_zoo = load_detectron2(config, zoo).model.state_dict()

    from_torch = load_detectron2(config, weights).model.state_dict()
    assert all(torch.equal(from_zoo[name], from_torch[name]) for name in from_torch)


def test_frozen_norms_of_old_checkpoints_need_no_statistics(
    tmp_path: Path, model: ResNetMaskRcnn
) -> None:
    def forget(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if "running" in name]:
            del state[name]

    norm = load_detectron2(*write(tmp_path, model, forget)).model.backbone.body.bn1

    assert torch.equal(norm.running_mean, torch.zeros(8))
    assert torch.equal(norm.running_var, torch.ones(8))


def test_a_checkpoint_of_several_gpus_gives_the_same_model(
    tmp_path: Path, model: ResNetMaskRcnn
) -> None:
    config, weights = write(tmp_path, model)
    alone = load_detectron2(config, weights).model.state_dict()
    state = torch.load(weights)["model"]
    torch.save({"model": {f"module.{name}": state[name] for name in state}}, weights)
    found = load_detectron2(config, weights).model.state_dict()
    assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_names_of_classes_come_from_metadata(tmp_path: Path, model: ResNetMaskRcnn) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps({"thing_classes": ["x", "y", "z"]}))
    loaded = load_detectron2(*write(tmp_path, model))
    assert (loaded.classes, loaded.classes_from) == (("x", "y", "z"), "metadata.json")


def test_names_of_classes_that_are_nowhere_are_numbers(
    tmp_path: Path, model: ResNetMaskRcnn
) -> None:
    loaded = load_detectron2(*write(tmp_path, model, dataset="coco_2017_train"))
    assert loaded.classes == ("class_0", "class_1", "class_2")
    assert loaded.classes_from.startswith("numbered")


@pytest.mark.parametrize(
    ("dataset", "count", "some"),
    [
        ("coco_2017_train", 80, {0: "person", 11: "stop sign", 79: "toothbrush"}),
        ("cityscapes_fine_instance_seg_train", 8, {0: "person", 7: "bicycle"}),
    ],
)
def test_names_of_known_data_sets(
    tmp_path: Path, dataset: str, count: int, some: dict[int, str]
) -> None:
    model = ResNetMaskRcnn(NARROW, count, PREPROCESS)
    loaded = load_detectron2(*write(tmp_path, model, dataset=dataset))
    assert loaded.classes_from == dataset
    assert {index: loaded.classes[index] for index in some} == some


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b"]])
def test_wrong_names_of_classes_are_refused(
    tmp_path: Path, model: ResNetMaskRcnn, names: list[str]
) -> None:
    with pytest.raises(ParameterError, match="The model has 3 classes"):
        load_detectron2(*write(tmp_path, model), classes=names)


@pytest.mark.parametrize("text", ["not json", "[]", '{"thing_classes": "a"}'])
def test_damaged_metadata_is_named(tmp_path: Path, model: ResNetMaskRcnn, text: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(SettingsError, match=r"metadata\.json holds no list"):
        load_detectron2(*write(tmp_path, model))


def remove(state: dict[str, Tensor]) -> None:
    del state["backbone.fpn_lateral3.weight"]


def add(state: dict[str, Tensor]) -> None:
    state["roi_heads.keypoint_head.conv.weight"] = torch.zeros(1)


def widen(state: dict[str, Tensor]) -> None:
    state["proposal_generator.rpn_head.conv.bias"] = torch.zeros(12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove, r"it lacks backbone\.fpn\.inner_blocks\.1\.0\.weight"),
        (add, r"it also has roi_heads\.keypoint_head"),
        (widen, r"it has rpn\.head\.conv\.0\.0\.bias of shape \[12\]"),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(
    tmp_path: Path, model: ResNetMaskRcnn, change: Change, words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        load_detectron2(*write(tmp_path, model, change))


def test_other_weights_are_refused(tmp_path: Path, model: ResNetMaskRcnn) -> None:
    config, weights = write(tmp_path, model)
    torch.save({"stem.conv1.weight": torch.zeros(1)}, weights)
    with pytest.raises(ParameterError, match=r"is not a checkpoint of Detectron2.*stem\.conv1"):
        load_detectron2(config, weights)


def test_names_of_caffe2_are_refused(tmp_path: Path, model: ResNetMaskRcnn) -> None:
    config, _ = write(tmp_path, model)
    weights = tmp_path / "R-50.pkl"
    weights.write_bytes(pickle.dumps({"model": {"w": np.zeros(1)}, "matching_heuristics": True}))
    with pytest.raises(ParameterError, match="names of Caffe2"):
        load_detectron2(config, weights)
