"""Where Detectron2 is installed: it and maskserve answer the same, with models of either.

It has no release that pip installs, so these tests are skipped in most places. They build narrow
models of every kind that is supported and compare whole answers to a rendered photo.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from detectron2_answers import compare, own_answer
from maskserve.datasets.synthetic import render_balloons
from maskserve.models import load_detectron2, to_detectron2

pytestmark = [
    pytest.mark.skipif(find_spec("detectron2") is None, reason="Detectron2 is not installed"),
    pytest.mark.filterwarnings("ignore"),  # it uses much that has been deprecated since
]

MIN_SCORE = 0.3

NARROW: list[Any] = [
    *("MODEL.MASK_ON", True, "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 32, "MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
    *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 1000, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
    *("MODEL.ROI_HEADS.NUM_CLASSES", 4, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", MIN_SCORE),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 2),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, "MODEL.ROI_BOX_HEAD.FC_DIM", 64),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", 32, "MODEL.ROI_MASK_HEAD.NUM_CONV", 4),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    *("INPUT.MIN_SIZE_TEST", 320, "INPUT.MAX_SIZE_TEST", 500),
]
KINDS: dict[str, list[Any]] = {
    "default": [],
    "101 layers, stride in 3x3": [
        *("MODEL.RESNETS.DEPTH", 101, "MODEL.RESNETS.STRIDE_IN_1X1", False)
    ],
    "ResNeXt, batch norm": [
        *("MODEL.RESNETS.NUM_GROUPS", 4, "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
        *("MODEL.RESNETS.NORM", "BN"),
    ],
    "group norm everywhere": [
        *("MODEL.RESNETS.NORM", "GN", "MODEL.FPN.NORM", "GN", "MODEL.ROI_BOX_HEAD.NORM", "GN"),
        *("MODEL.ROI_MASK_HEAD.NORM", "GN", "MODEL.ROI_BOX_HEAD.NUM_CONV", 4),
        *("MODEL.ROI_BOX_HEAD.NUM_FC", 1),
    ],
    "class-agnostic": [
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        *("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True),
    ],
    "old RoIAlign, averaged levels, two RPN layers": [
        *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.FPN.FUSE_TYPE", "avg"),
        *("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.RPN.CONV_DIMS", [-1, 48]),
        *("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
    ],
    "other anchors, limits and pixels": [
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[20, 30], [40, 60], [80, 120], [160, 240], [320, 480]]),
        *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.4, 1.3]]),
        *("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5, "INPUT.FORMAT", "RGB"),
        *("MODEL.PIXEL_MEAN", [123.0, 116.0, 103.0], "MODEL.PIXEL_STD", [58.0, 57.0, 56.0]),
        *("MODEL.RPN.PRE_NMS_TOPK_TEST", 300, "MODEL.RPN.POST_NMS_TOPK_TEST", 150),
        *("MODEL.RPN.NMS_THRESH", 0.8, "MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.4),
        *("MODEL.RPN.BBOX_REG_WEIGHTS", (2.0, 2.0, 1.0, 1.0)),
        *("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (5.0, 5.0, 3.0, 3.0)),
        *("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 8, "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 10),
        *("TEST.DETECTIONS_PER_IMAGE", 20),
    ],
}


@pytest.fixture(scope="module")
def photo() -> npt.NDArray[np.uint8]:
    return render_balloons(size=(300, 420), count=6, seed=2)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_same_in_both_directions(
    kind: str, photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    from lively_detectron2 import answer, config_of, write_lively_model  # noqa: PLC0415

    theirs = tmp_path / "theirs"
    config = write_lively_model(config_of(None, NARROW + KINDS[kind]), theirs, photo)
    expected = answer(config, photo)
    files = theirs / "config.yaml", theirs / "model_final.pth"

    found = own_answer(*files, photo, min_score=MIN_SCORE)

    assert compare(expected, found, min_score=MIN_SCORE).instances > 8

    loaded = load_detectron2(*files)
    state, text = to_detectron2(
        loaded.model, preprocess=loaded.preprocess, postprocess=loaded.postprocess
    )
    ours = tmp_path / "ours"
    ours.mkdir()
    torch.save({"model": state}, ours / "model_final.pth")
    (ours / "config.yaml").write_text(text)
    config = config_of(ours / "config.yaml", ["MODEL.WEIGHTS", str(ours / "model_final.pth")])
    assert_fits(config, state)
    assert compare(expected, answer(config, photo), min_score=MIN_SCORE).instances > 8


def assert_fits(config: Any, state: dict[str, torch.Tensor]) -> None:
    """Detectron2 finds a place for each tensor, and a tensor for each place."""
    model = import_module("detectron2.modeling").build_model(config)
    model.load_state_dict(state, strict=True)
