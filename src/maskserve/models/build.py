"""From a model's name to a network, and from a name of initial weights to its start."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import (
    MobileNet_V2_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    WeightsEnum,
)
from torchvision.models.detection import MaskRCNN, MaskRCNN_ResNet50_FPN_Weights

from maskserve.core.categories import nearest_name
from maskserve.core.errors import ParameterError, TrainingError
from maskserve.core.manifest import Preprocess
from maskserve.models.backbones import mobilenet_v2_fpn, resnet_fpn
from maskserve.models.checkpoint import load_matching, read_weights
from maskserve.models.mask_rcnn import LightDesign, build_light, build_standard

__all__ = ["MODELS", "build_model", "initialise"]

MODELS = ("mobilenet_v2", "resnet50", "resnet101")
"""Names of the models: the light one, and the paper's with its standard heads."""

_IMAGENET: dict[str, WeightsEnum] = {
    "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V2,
    "resnet101": ResNet101_Weights.IMAGENET1K_V2,
}
_COCO: dict[str, WeightsEnum] = {"resnet50": MaskRCNN_ResNet50_FPN_Weights.COCO_V1}


def build_model(
    name: str, *, classes: int, preprocess: Preprocess, design: LightDesign | None = None
) -> MaskRCNN:
    """A Mask R-CNN with random weights.

    Args:
        name: One of :data:`MODELS`.
        classes: Number of classes without the background.
        preprocess: Gives the normalisation.
        design: Of the light model; None for its defaults.

    Raises:
        ParameterError: There is no such model, or it has no light design.
    """
    if name not in MODELS:
        nearest = nearest_name(name, MODELS)
        guess = f"Did you mean “{nearest}”? " if nearest else ""
        raise ParameterError(
            f"There is no model “{name}”.", hint=f"{guess}Known: {', '.join(MODELS)}."
        )
    if name == "mobilenet_v2":
        design = design or LightDesign()
        backbone = mobilenet_v2_fpn(channels=design.channels, first_stride=design.first_stride)
        return build_light(backbone, classes, preprocess, design)
    if design is not None:
        raise ParameterError(f"{name} has the standard heads; a light design does not apply to it.")
    return build_standard(resnet_fpn(name), classes, preprocess)


def initialise(model: MaskRCNN, name: str, start: str) -> str:
    """Load initial weights into a model that :func:`build_model` made.

    Args:
        model: Changed in place.
        name: The model's name.
        start: ``auto``: ``coco`` where there is one, else ``imagenet``; ``none``;
            ``imagenet``: the backbone from torchvision's ImageNet checkpoint;
            ``coco``: the whole model from torchvision's COCO Mask R-CNN, heads of another
            number of classes left out (resnet50 only); or a path: a ``.safetensors`` or
            weights-only ``.pth`` file of a whole model or of a backbone.

    Returns:
        What was loaded, in words, for the log and the model card.

    Raises:
        ParameterError: The start is not known for this model, or the file does not fit it.
        TrainingError: torchvision could not fetch its checkpoint.
    """
    if start == "auto":
        start = "coco" if name in _COCO else "imagenet"
    if start == "none":
        return "random"
    if start == "imagenet":
        weights = _IMAGENET[name]
        load_matching(_backbone_body(model), _fetch(weights), where=str(weights))
        return f"backbone from torchvision {weights}"
    if start == "coco":
        if name not in _COCO:
            raise ParameterError(
                f"torchvision has no COCO Mask R-CNN for {name}.",
                hint="Use --init imagenet, none or a file.",
            )
        weights = _COCO[name]
        remade = load_matching(model, _fetch(weights), where=str(weights))
        return f"torchvision {weights}" + _remade(remade)
    path = Path(start)
    state = read_weights(path)
    whole = any(key.startswith("roi_heads.") for key in state)
    remade = load_matching(model if whole else _backbone_body(model), state, where=str(path))
    return f"{'model' if whole else 'backbone'} from {path.name}" + _remade(remade)


def _remade(names: list[str]) -> str:
    return f"; made anew: {', '.join(names)}" if names else ""


def _backbone_body(model: MaskRCNN) -> nn.Module:
    """The classification network inside the model, under its checkpoint's own names."""
    body: nn.Module = model.backbone.body
    if isinstance(body, nn.Sequential):  # MobileNetV2's checkpoint calls its layers features.*
        return nn.ModuleDict({"features": body})
    return body


def _fetch(weights: WeightsEnum) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(check_hash=True)
    except OSError as error:
        name = str(weights.url).rsplit("/", 1)[-1]
        raise TrainingError(
            f"torchvision could not download {name}: {error}.",
            hint=f"Without internet, put that file into {torch.hub.get_dir()}/checkpoints, "
            "or start with --init none or --init FILE.",
        ) from None
    return state
