"""Models of torchvision give the answers that torchvision gives.

No published weights are needed: batch norm learns its statistics from the photo, and each last
layer is scaled until some tens of detections appear, of all sizes and scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import MaskRCNN

from maskserve.datasets.synthetic import render_balloons
from maskserve.export.parity import TOLERANCE, _compare
from maskserve.models import InferenceNetwork, TorchEngine
from maskserve.models.torchvision_zoo import COCO, TORCHVISION_MODELS, load_torchvision
from maskserve.runtime.engine import RawDetections

MIN_SCORE = 0.05
PROPOSALS = 40
SPREADS = (
    ("rpn.head.cls_logits", 2.0),
    ("rpn.head.bbox_pred", 0.4),
    ("roi_heads.box_predictor.cls_score", 3.0),
    ("roi_heads.box_predictor.bbox_pred", 1.0),
    ("roi_heads.mask_predictor.mask_fcn_logits", 2.0),
)


def few_proposals(model: MaskRCNN) -> None:
    """Random weights find something everywhere; with fewer proposals it takes less time."""
    for limits in (model.rpn._pre_nms_top_n, model.rpn._post_nms_top_n):
        limits["testing"] = PROPOSALS


def lively(name: str, photo: Tensor) -> MaskRCNN:
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None)
    # The photo keeps its size, since resizing is the one thing that differs.
    model.transform.min_size, model.transform.max_size = (min(photo.shape[1:]),), 10_000
    few_proposals(model)
    model.eval()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    model([photo])
    for norm in norms:
        norm.eval()
    for layer_name, spread in SPREADS:
        layer = model.get_submodule(layer_name)
        outputs: list[Tensor] = []
        hook = layer.register_forward_hook(
            lambda _, __, output, seen=outputs: seen.append(output.flatten())
        )
        model([photo])
        hook.remove()
        layer.weight.mul_(spread / torch.cat(outputs).std())
        if layer_name.endswith("cls_score"):
            layer.bias[0] += 9.0  # most is background
    assert isinstance(model, MaskRCNN)
    return model


def torchvision_answer(model: MaskRCNN, photo: Tensor) -> RawDetections:
    """Detections of torchvision before masks are pasted, of the classes that COCO uses."""
    seen: list[dict[str, Tensor]] = []
    hook = model.roi_heads.register_forward_hook(
        lambda _, __, output: seen.extend(dict(found) for found in output[0])
    )
    model([photo])
    hook.remove()
    boxes, scores, labels, masks = (
        seen[0][key].numpy() for key in ("boxes", "scores", "labels", "masks")
    )
    used = np.isin(labels, COCO.category_ids)
    indices = np.searchsorted(COCO.category_ids, labels[used])
    return RawDetections(boxes[used], scores[used], indices, masks[used, 0])


@pytest.mark.parametrize("name", TORCHVISION_MODELS)
@torch.inference_mode()
def test_answers_are_those_of_torchvision(name: str, tmp_path: Path) -> None:
    photo = render_balloons(size=(96, 128), count=6, seed=2)[0]
    tensor = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    reference = lively(name, tensor)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    expected = torchvision_answer(reference, tensor)

    loaded = load_torchvision(name, tmp_path / "weights.pth")
    assert loaded.categories == COCO
    few_proposals(loaded.model)

    found = TorchEngine(InferenceNetwork(loaded.model)).infer(photo, min_score=MIN_SCORE)

    matched, differences, ties = _compare(expected, found, MIN_SCORE, TOLERANCE)
    assert matched > 8
    assert len(differences + ties) <= TOLERANCE.share * len(expected.scores), differences + ties
