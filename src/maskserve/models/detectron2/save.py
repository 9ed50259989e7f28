"""From a model of this package to what Detectron2 loads."""

from __future__ import annotations

from torch import Tensor

from maskserve.core.manifest import Postprocess, Preprocess
from maskserve.models.detectron2.config import Detectron2Config, write_config
from maskserve.models.detectron2.weights import translate_to_detectron2
from maskserve.models.resnet import ResNetMaskRcnn

__all__ = ["CHECKPOINT_NAME", "to_detectron2"]

CHECKPOINT_NAME = "model_final.pth"
"""What Detectron2 calls the checkpoint at the end of a training."""


def to_detectron2(
    model: ResNetMaskRcnn, *, preprocess: Preprocess, postprocess: Postprocess
) -> tuple[dict[str, Tensor], str]:
    """Weights and config of a ResNet Mask R-CNN for Detectron2.

    Args:
        model: One that was trained here, or that ``load_detectron2`` gave.
        preprocess: What photos go through before the model.
        postprocess: Gives the threshold and the number of detections.

    Returns:
        The ``model`` of a checkpoint, and the text of a ``config.yaml`` that expects it in
        :data:`CHECKPOINT_NAME`.
    """
    state = translate_to_detectron2(model.state_dict())
    config = Detectron2Config(
        design=model.design,
        classes=len(state["roi_heads.box_predictor.cls_score.weight"]) - 1,
        preprocess=preprocess,
        min_score=postprocess.min_score,
        max_instances=postprocess.max_instances,
    )
    return state, write_config(config, weights=CHECKPOINT_NAME)
