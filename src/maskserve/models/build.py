"""From a model's name to a network with random weights."""

from __future__ import annotations

from torchvision.models.detection import MaskRCNN

from maskserve.core.categories import nearest_name
from maskserve.core.errors import ParameterError
from maskserve.core.manifest import Preprocess
from maskserve.models.backbones import mobilenet_v2_fpn
from maskserve.models.mask_rcnn import LightDesign, build_light
from maskserve.models.resnet import ResNetDesign, ResNetMaskRcnn

__all__ = ["MODELS", "build_model"]

MODELS = ("mobilenet_v2", "resnet50", "resnet101")
"""Names of the models: the light one, and the paper's with its standard heads."""


def build_model(
    name: str,
    *,
    classes: int,
    preprocess: Preprocess,
    design: LightDesign | ResNetDesign | None = None,
) -> MaskRCNN:
    """A Mask R-CNN with random weights.

    Args:
        name: One of :data:`MODELS`.
        classes: Number of classes without the background.
        preprocess: Gives the normalisation.
        design: Sizes of its parts; None for the model's defaults. Beside a ``ResNetDesign``,
            which has a depth, it does not matter which ResNet ``name`` is.

    Raises:
        ParameterError: There is no such model, or the design is of another kind of model.
    """
    if name not in MODELS:
        nearest = nearest_name(name, MODELS)
        guess = f"Did you mean “{nearest}”? " if nearest else ""
        raise ParameterError(
            f"There is no model “{name}”.", hint=f"{guess}Known: {', '.join(MODELS)}."
        )
    if name == "mobilenet_v2":
        design = design or LightDesign()
        if not isinstance(design, LightDesign):
            raise ParameterError(f"A design of a ResNet does not apply to {name}.")
        backbone = mobilenet_v2_fpn(channels=design.channels, first_stride=design.first_stride)
        return build_light(backbone, classes, preprocess, design)
    design = design or ResNetDesign(depth=101 if name == "resnet101" else 50)
    if not isinstance(design, ResNetDesign):
        raise ParameterError(f"{name} has the standard heads; a light design does not apply to it.")
    return ResNetMaskRcnn(design, classes, preprocess)
