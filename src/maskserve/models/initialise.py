"""Loading initial weights into a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models import (
    MobileNet_V2_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    WeightsEnum,
)
from torchvision.models.detection import MaskRCNN, MaskRCNN_ResNet50_FPN_Weights

from maskserve.core.errors import ParameterError
from maskserve.models.checkpoint import load_matching
from maskserve.models.start import Start, read_start
from maskserve.models.torchvision_zoo import fetch_weights, modern_names

__all__ = ["NAMED_STARTS", "has_same_pyramid", "initialise"]

NAMED_STARTS = ("auto", "coco", "imagenet", "none")
"""Starts of :func:`initialise` that are no files."""

_IMAGENET: dict[str, WeightsEnum] = {
    "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V2,
    "resnet101": ResNet101_Weights.IMAGENET1K_V2,
}
_COCO: dict[str, WeightsEnum] = {"resnet50": MaskRCNN_ResNet50_FPN_Weights.COCO_V1}

_BODY = "backbone.body."
_PYRAMID = "backbone.fpn."


def initialise(model: MaskRCNN, name: str, start: str | Start) -> str:
    """Load initial weights into a model that :func:`build_model` made.

    Args:
        model: Changed in place.
        name: The model's name.
        start: ``auto``: ``coco`` where there is one, else ``imagenet``; ``none``;
            ``imagenet``: the backbone from torchvision's ImageNet checkpoint;
            ``coco``: the whole model from torchvision's COCO Mask R-CNN (resnet50 only);
            or what :func:`maskserve.models.start.read_start` reads or has read, of a whole model
            or of a backbone. Heads of another number of classes are left as they are; of a model
            with another pyramid, only the backbone is taken.

    Returns:
        What was loaded, in words, for the log and the model card.

    Raises:
        ParameterError: The start is not known for this model, or the file does not fit it.
        DownloadError: A checkpoint could not be downloaded.
    """
    if start == "auto":
        start = "coco" if name in _COCO else "imagenet"
    if start == "none":
        return "random"
    if start == "imagenet":
        weights = _IMAGENET[name]
        load_matching(_backbone_body(model), fetch_weights(weights), where=str(weights))
        return f"backbone from torchvision {weights}"
    if start == "coco":
        if name not in _COCO:
            raise ParameterError(
                f"torchvision has no COCO Mask R-CNN for {name}.",
                hint="Use --init imagenet, none or a file.",
            )
        weights = _COCO[name]
        state = modern_names(fetch_weights(weights))
        remade = load_matching(model, state, where=str(weights))
        return f"torchvision {weights}" + _remade(remade)
    found = start if isinstance(start, Start) else read_start(start)
    target, state = _find_place(model, found.state)
    remade = load_matching(target, state, where=found.source)
    return f"{'model' if target is model else 'backbone'} from {found.words}" + _remade(remade)


def _find_place(
    model: MaskRCNN, state: Mapping[str, Tensor]
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The part of the model that weights are for, and them under its names."""
    if not any(name.startswith(("roi_heads.", _PYRAMID)) for name in state):
        return _backbone_body(model), dict(state)
    if has_same_pyramid(model, state):
        return model, dict(state)
    body = {k.removeprefix(_BODY): v for k, v in state.items() if k.startswith(_BODY)}
    return model.backbone.body, body


def has_same_pyramid(model: MaskRCNN, state: Mapping[str, Tensor]) -> bool:
    """Whether heads of these weights would find what they know; else only the backbone fits."""
    own = {name: t.shape for name, t in model.state_dict().items() if name.startswith(_PYRAMID)}
    found = {name: tensor.shape for name, tensor in state.items() if name.startswith(_PYRAMID)}
    return own == found


def _remade(names: list[str]) -> str:
    """In words; of a backbone only how many, since a deeper one adds hundreds."""
    words = [name for name in names if _BODY not in name]
    if len(words) < len(names):
        words.append(f"{len(names) - len(words)} tensors of the backbone")
    return f"; made anew: {', '.join(words)}" if words else ""


def _backbone_body(model: MaskRCNN) -> nn.Module:
    """The classification network inside the model, under its checkpoint's own names."""
    body: nn.Module = model.backbone.body
    if isinstance(body, nn.Sequential):  # MobileNetV2's checkpoint calls its layers features.*
        return nn.ModuleDict({"features": body})
    return body
