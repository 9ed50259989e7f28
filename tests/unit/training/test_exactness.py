"""Boxes and masks are learned where they are, not nearby."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from maskserve.core import Preprocess
from maskserve.models import build_model
from maskserve.models.mask_rcnn import LightDesign
from maskserve.training.exactness import masks_at_corners, propose_in_float32

BOX = torch.tensor([[301.0, 7.0, 319.0, 23.0]])  # bfloat16 has no odd numbers above 256


def _disc(size: int, x: float, y: float, radius: float) -> Tensor:
    """uint8 (1, size, size)."""
    centres = torch.arange(size) + 0.5
    return ((centres[None] - x) ** 2 + (centres[:, None] - y) ** 2 < radius**2)[None].byte()


@pytest.mark.parametrize("exact", [True, False], ids=["ours", "torchvision alone"])
def test_annotated_boxes_are_not_rounded_under_autocast(exact: bool) -> None:
    torch.manual_seed(0)
    design = LightDesign(channels=8, proposals=8, mask_channels=(8,))
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess(), design=design)
    if exact:
        propose_in_float32(model)
    learned_from: list[Tensor] = []
    subsample = model.roi_heads.assign_targets_to_proposals

    def watch(proposals: Any, boxes: list[Tensor], labels: Any) -> Any:
        learned_from.extend(boxes)
        return subsample(proposals, boxes, labels)

    model.roi_heads.assign_targets_to_proposals = watch
    masks = torch.zeros(1, 32, 352, dtype=torch.uint8)
    masks[:, 7:23, 301:319] = 1
    target = {"boxes": BOX, "labels": torch.tensor([1]), "masks": masks}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.train()([torch.rand(3, 32, 352)], [target])

    assert torch.equal(learned_from[0].float(), BOX) == exact


@pytest.mark.parametrize("box", [[20.3, 33.0, 61.0, 75.7], [22.0, 37.0, 58.0, 73.0]])
def test_masks_are_learned_where_they_are(box: list[float]) -> None:
    disc = _disc(100, x=40, y=55, radius=18)
    (grid,) = project_masks_on_boxes(
        masks_at_corners(disc), torch.tensor([box]), torch.tensor([0]), 28
    )
    steps = (torch.arange(28) + 0.5) / 28
    x = box[0] + (box[2] - box[0]) * float((grid.sum(0) * steps).sum() / grid.sum())
    y = box[1] + (box[3] - box[1]) * float((grid.sum(1) * steps).sum() / grid.sum())
    assert (x, y) == pytest.approx((40, 55), abs=0.02)


def test_a_mask_that_fills_the_photo_has_no_softer_border() -> None:
    assert (masks_at_corners(torch.ones(1, 8, 8, dtype=torch.uint8)) == 1).all()
