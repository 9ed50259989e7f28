"""The network that is served computes what torchvision's own inference computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import box_iou

from maskserve.core import Preprocess
from maskserve.models import InferenceNetwork, ResNetDesign, TorchEngine, build_model
from maskserve.models.inference import _vote
from maskserve.models.mask_rcnn import LightDesign

SIZES = {"photo": (96, 160), "odd": (75, 101), "very wide": (58, 400), "small": (50, 60)}
# Below 46 px torchvision takes the padding for a smaller stride and pools from the wrong place.


class _NoisePyramid(nn.Module):
    """In place of the backbone, which both inferences share: noise that depends on the size.

    What a random backbone gives is nearly constant, so that everything scores the same and
    rounding decides what is found.
    """

    def __init__(self, channels: int, strides: dict[str, int]) -> None:
        super().__init__()
        self.out_channels = channels
        self._strides = strides
        self.seen: list[torch.Tensor] = []

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(pixels)
        generator = torch.Generator().manual_seed(7)
        height, width = pixels.shape[2:]
        return {
            level: torch.randn(
                (1, self.out_channels, -(-height // stride), -(-width // stride)),
                generator=generator,
            )
            for level, stride in self._strides.items()
        }


STRIDES = {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64}
COARSE_STRIDES = {"0": 8, "1": 16, "2": 32, "pool": 64}
PLAIN = LightDesign(voting_iou=1.0)
COARSE = replace(PLAIN, first_stride=8, anchor_sizes_px=(32, 64, 128, 256), channels=64)
DETECTRON2 = ResNetDesign(
    anchor_sizes_px=((20, 30), (40, 60), (80, 120), (160, 240), (320, 480)),
    anchor_offset=0.5,
    aspect_ratios=((0.5, 2.0),) * 5,
    rpn_box_weights=(2.0, 2.0, 1.0, 1.0),
    min_proposal_px=4.0,
    box_sampling=0,
    box_aligned=True,
    mask_aligned=True,
)


def _lively(name: str, design: LightDesign | ResNetDesign | None = None) -> MaskRCNN:
    """A random model of three classes whose scores and boxes spread out."""
    torch.manual_seed(3)
    model = build_model(name, classes=3, preprocess=Preprocess(), design=design).eval()
    strides = COARSE_STRIDES if design is COARSE else STRIDES
    model.backbone = _NoisePyramid(model.backbone.out_channels, strides)
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        torch.nn.init.normal_(layer.weight, std=0.1)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    return model


def _photo(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize(
    ("name", "design"),
    [
        ("mobilenet_v2", PLAIN),
        ("mobilenet_v2", COARSE),
        ("resnet50", None),
        ("resnet50", DETECTRON2),
    ],
    ids=["light", "light from stride 8", "standard", "as in Detectron2"],
)
def test_same_detections_as_torchvision(
    name: str, design: LightDesign | ResNetDesign | None, size: tuple[int, int]
) -> None:
    model, photo = _lively(name, design), _photo(size)
    model.roi_heads.score_thresh = 0.3
    model.transform.resize = lambda image, target: (image, target)
    model.transform.postprocess = lambda found, *_: found  # would paste the 28x28 grids
    with torch.inference_mode():
        [detections] = model([torch.tensor(photo).permute(2, 0, 1) / 255])
    expected = {key: value.numpy() for key, value in detections.items()}

    found = TorchEngine(InferenceNetwork(model)).infer(photo, min_score=0.3)

    assert len(found.scores) == len(expected["scores"]) > 0
    # Two that score the same may have changed places.
    distances = np.abs(expected["boxes"][:, None] - found.boxes_xyxy).max(axis=2)
    order = distances.argmin(axis=1)
    assert sorted(order) == list(range(len(order)))
    np.testing.assert_allclose(found.boxes_xyxy[order], expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.scores[order], expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(found.class_indices[order], expected["labels"] - 1)
    np.testing.assert_allclose(found.mask_grids[order], expected["masks"][:, 0], atol=1e-4)
    theirs, ours = model.backbone.seen
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_higher_min_score_gives_the_same_detections_less_the_weak_ones() -> None:
    engine = TorchEngine(InferenceNetwork(_lively("mobilenet_v2")))
    photo = _photo(SIZES["photo"])
    everything = engine.infer(photo, min_score=0.1)
    middle = float(np.median(everything.scores))
    strong = everything.scores > middle
    assert 0 < strong.sum() < len(strong)

    found = engine.infer(photo, min_score=middle)

    np.testing.assert_array_equal(found.boxes_xyxy, everything.boxes_xyxy[strong])
    np.testing.assert_allclose(found.mask_grids, everything.mask_grids[strong], atol=1e-5)


def test_nothing_found_is_an_answer_of_length_zero() -> None:
    engine = TorchEngine(InferenceNetwork(_lively("mobilenet_v2")))
    found = engine.infer(_photo(SIZES["photo"]), min_score=1.0)
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.mask_grids.shape == (0, 28, 28)


def test_detections_are_limited_best_first() -> None:
    engine = TorchEngine(InferenceNetwork(_lively("mobilenet_v2"), max_instances=5))
    found = engine.infer(_photo(SIZES["photo"]), min_score=0.0)
    assert len(found.scores) == 5
    assert (np.diff(found.scores) <= 0).all()


def test_boxes_become_the_mean_of_those_that_overlap_them() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 40 * torch.rand(60, 2, generator=generator)
    voters = torch.cat([corners, corners + 20 + 20 * torch.rand(60, 2, generator=generator)], dim=1)
    votes = torch.rand(60, generator=generator)
    boxes = voters[:10]
    iou = box_iou(boxes, voters)
    assert ((iou >= 0.6).sum(dim=1) > 1).sum() > 5

    found = _vote(
        boxes,
        voters[:, None].expand(-1, 10, -1),
        votes[:, None].expand(-1, 10),
        least_iou=0.6,
    )

    for box, overlaps in zip(found, iou >= 0.6, strict=True):
        weights = votes[overlaps] / votes[overlaps].sum()
        torch.testing.assert_close(box, weights @ voters[overlaps])


def test_voting_moves_boxes_and_nothing_else() -> None:
    photo = _photo(SIZES["photo"])
    plain, voted = (
        TorchEngine(InferenceNetwork(_lively("mobilenet_v2", design))).infer(photo, min_score=0.3)
        for design in (PLAIN, replace(PLAIN, voting_iou=0.3))
    )
    np.testing.assert_array_equal(voted.scores, plain.scores)
    np.testing.assert_array_equal(voted.class_indices, plain.class_indices)
    overlap = box_iou(torch.tensor(plain.boxes_xyxy), torch.tensor(voted.boxes_xyxy)).diagonal()
    assert 0.3 < overlap.min() < 0.9
