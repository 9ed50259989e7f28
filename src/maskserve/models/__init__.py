"""Mask R-CNN in torch: backbones, heads, initial weights, and the network as it is served."""

from maskserve.models.build import MODELS, build_model
from maskserve.models.detectron2 import (
    Detectron2Config,
    Detectron2Model,
    load_detectron2,
    read_config,
    to_detectron2,
    translate_detectron2_state,
)
from maskserve.models.inference import InferenceNetwork, TorchEngine
from maskserve.models.initialise import initialise
from maskserve.models.resnet import ResNetDesign, ResNetMaskRcnn

__all__ = [
    "MODELS",
    "Detectron2Config",
    "Detectron2Model",
    "InferenceNetwork",
    "ResNetDesign",
    "ResNetMaskRcnn",
    "TorchEngine",
    "build_model",
    "initialise",
    "load_detectron2",
    "read_config",
    "to_detectron2",
    "translate_detectron2_state",
]
