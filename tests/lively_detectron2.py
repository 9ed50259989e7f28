"""Models that Detectron2 itself builds and runs; needs it to be installed.

Random weights find nothing, or everything alike. Here batch norm learns its statistics from a
photo, and each last layer is scaled until its outputs spread out: some tens of detections appear,
of all sizes and scores.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detectron2_answers import Answer, answer_from

Photo = npt.NDArray[np.uint8]

_SPREADS = (
    ("proposal_generator.rpn_head.objectness_logits", 2.0),
    ("proposal_generator.rpn_head.anchor_deltas", 0.4),
    ("roi_heads.box_predictor.cls_score", 3.0),
    ("roi_heads.box_predictor.bbox_pred", 1.0),
    ("roi_heads.mask_head.predictor", 2.0),
)
_WANTED = range(15, 90)


def config_of(base: Path | None, overrides: list[Any]) -> Any:
    """Detectron2's config, on the CPU."""
    config = import_module("detectron2.config").get_cfg()
    if base is not None:
        config.merge_from_file(str(base))
    config.merge_from_list([*overrides, "MODEL.DEVICE", "cpu"])
    return config


def answer(config: Any, photo: Photo) -> Answer:
    """What Detectron2's ``DefaultPredictor`` finds in an RGB photo."""
    predictor = import_module("detectron2.engine").DefaultPredictor(config)
    return answer_from(predictor(np.ascontiguousarray(photo[:, :, ::-1]))["instances"])


def write_lively_model(config: Any, folder: Path, photo: Photo, *, seed: int = 0) -> Any:
    """Write ``config.yaml`` and ``model_final.pth`` of a model that finds things in ``photo``.

    Returns:
        The config, with the checkpoint's place.
    """
    torch.manual_seed(seed)
    frozen = config.MODEL.RESNETS.NORM == "FrozenBN"
    learning = config.clone()
    if frozen:  # learn statistics first
        learning.MODEL.RESNETS.NORM = "BN"
    model = import_module("detectron2.modeling").build_model(learning)
    inputs = [{"image": _resized(config, photo), "height": photo.shape[0], "width": photo.shape[1]}]
    _learn_statistics(model, inputs)
    for name, spread in _SPREADS:
        _spread(model, model.get_submodule(name), inputs, spread)
    _limit_detections(model, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model_final.pth"
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (frozen and name.endswith("num_batches_tracked"))
    }
    torch.save({"model": state, "iteration": 1}, weights)
    config = config.clone()
    config.MODEL.WEIGHTS = str(weights)
    (folder / "config.yaml").write_text(config.dump())
    return config


def _resized(config: Any, photo: Photo) -> Tensor:
    transforms = import_module("detectron2.data.transforms")
    shortest = config.INPUT.MIN_SIZE_TEST
    resize = transforms.ResizeShortestEdge([shortest, shortest], config.INPUT.MAX_SIZE_TEST)
    pixels = photo if config.INPUT.FORMAT == "RGB" else photo[:, :, ::-1]
    resized = resize.get_transform(pixels).apply_image(np.ascontiguousarray(pixels))
    return torch.tensor(resized.astype("float32").transpose(2, 0, 1))


def _learn_statistics(model: Any, inputs: list[dict[str, Any]]) -> None:
    """Of the backbone's batch norms; those of heads keep statistics that change nothing."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.momentum = None  # the mean of all that it sees
        norm.train()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    for name, layer in model.named_modules():
        if name.endswith("conv3.norm"):  # tame: a deep random network blows rounding up
            nn.init.uniform_(layer.weight, 0.1, 0.3)
    with torch.no_grad():
        model.backbone(model.preprocess_image(inputs).tensor)
    for norm in norms:
        norm.eval()


def _spread(model: Any, layer: Any, inputs: list[dict[str, Any]], target: float) -> None:
    nn.init.normal_(layer.weight)
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: seen.append(output.flatten()))
    with torch.no_grad():
        model.inference(inputs, do_postprocess=False)
        hook.remove()
        layer.weight *= target / torch.cat(seen).std()


def _limit_detections(model: Any, inputs: list[dict[str, Any]]) -> None:
    """Shift the background's score until there are some tens of detections."""
    bias = model.get_submodule("roi_heads.box_predictor.cls_score").bias
    low, high = -20.0, 40.0
    for _ in range(20):
        middle = (low + high) / 2
        with torch.no_grad():
            bias[-1] = middle
            [found] = model.inference(inputs, do_postprocess=False)
        if len(found) in _WANTED:
            return
        low, high = (middle, high) if len(found) >= _WANTED.stop else (low, middle)
    raise AssertionError(f"{len(found)} detections, whatever the background scores")
