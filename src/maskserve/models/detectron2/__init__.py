"""Detectron2's Mask R-CNN: its configs and checkpoints read and written, without Detectron2.

Detectron2 (https://github.com/facebookresearch/detectron2) and torchvision build the same network
from the same operators. What differs is the names of layers, the order of classes, and a few
numbers; the numbers stand in :class:`maskserve.models.resnet.ResNetDesign`.
"""

from maskserve.models.detectron2.config import Detectron2Config, read_config
from maskserve.models.detectron2.load import METADATA_NAME, Detectron2Model, load_detectron2
from maskserve.models.detectron2.save import CHECKPOINT_NAME, to_detectron2
from maskserve.models.detectron2.weights import is_detectron2_state, translate_detectron2_state

__all__ = [
    "CHECKPOINT_NAME",
    "METADATA_NAME",
    "Detectron2Config",
    "Detectron2Model",
    "is_detectron2_state",
    "load_detectron2",
    "read_config",
    "to_detectron2",
    "translate_detectron2_state",
]
