"""Mask R-CNN in torch: backbones, heads, initial weights, and the network as it is served."""

from maskserve.models.build import MODELS, build_model, initialise
from maskserve.models.inference import InferenceNetwork, TorchEngine

__all__ = ["MODELS", "InferenceNetwork", "TorchEngine", "build_model", "initialise"]
