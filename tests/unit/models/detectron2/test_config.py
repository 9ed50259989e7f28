from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskserve.core import Preprocess
from maskserve.core.errors import SettingsError
from maskserve.models import Detectron2Config, ResNetDesign, read_config
from maskserve.models.detectron2.config import write_config

ZOO = '_BASE_: "../Base-RCNN-FPN.yaml"\nMODEL:\n  MASK_ON: True\n'


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def changed(folder: Path, key: str, value: Any) -> Path:
    """A model of the zoo with one setting changed."""
    settings: Any = value
    for part in reversed(key.split(".")):
        settings = {part: settings}
    model = settings.setdefault("MODEL", {})
    model.setdefault("MASK_ON", True)
    return write(folder, yaml.safe_dump({"_BASE_": "Base-RCNN-FPN.yaml", **settings}))


def test_model_of_the_zoo_needs_no_other_file(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, ZOO + "  RESNETS:\n    DEPTH: 101\n"))

    assert config == Detectron2Config(
        design=ResNetDesign(
            depth=101,
            stride_in_1x1=True,
            box_sampling=0,
            box_aligned=True,
            mask_sampling=0,
            mask_aligned=True,
        ),
        classes=80,
        preprocess=Preprocess(
            channel_order="bgr",
            short_side_px=800,
            max_side_px=1333,
            mean=(103.53, 116.28, 123.675),
            std=(1, 1, 1),
        ),
        min_score=0.05,
        max_instances=100,
        datasets=("coco_2017_train", "coco_2017_val"),
    )


def test_bases_are_read_relative_to_their_config(tmp_path: Path) -> None:
    write(tmp_path, "MODEL: {FPN: {OUT_CHANNELS: 64, NORM: GN}}", "bases/deep/other.yaml")
    write(tmp_path, ZOO + "  FPN: {OUT_CHANNELS: 96}\n", "bases/mine.yaml")
    path = write(
        tmp_path,
        "_BASE_: [bases/mine.yaml, bases/deep/other.yaml]\nMODEL: {FPN: {OUT_CHANNELS: 128}}",
    )

    design = read_config(path).design

    assert design.fpn_channels == 128
    assert design.fpn_norm == "GN"
    assert design.rpn_channels == (128,)


def test_a_base_that_is_missing_is_named_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, "_BASE_: ../common/mine.yaml\n", "models/config.yaml")
    with pytest.raises(SettingsError) as caught:
        read_config(path)
    assert str(tmp_path / "models" / "../common/mine.yaml") in str(caught.value)
    assert "_BASE_ of" in str(caught.value)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("Base-RCNN-C4.yaml", "a C4 model"),
        ("Base-RCNN-DilatedC5.yaml", "a DC5 model"),
        ("Base-RetinaNet.yaml", "a RetinaNet"),
        ("Base-Keypoint-RCNN-FPN.yaml", "a Keypoint R-CNN"),
        ("Base-Panoptic-FPN.yaml", "a Panoptic FPN"),
    ],
)
def test_other_models_of_the_zoo_are_refused_without_their_base(
    tmp_path: Path, base: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        read_config(write(tmp_path, f"_BASE_: ../{base}\nMODEL: {{MASK_ON: True}}\n"))


def test_bases_in_a_circle_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "_BASE_: config.yaml\n", "other.yaml")
    with pytest.raises(SettingsError, match="of itself"):
        read_config(write(tmp_path, "_BASE_: other.yaml\n"))


def test_text_and_tuples_read_as_detectron2_reads_them(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ZOO
        + '  ANCHOR_GENERATOR: {SIZES: "[[16], [32], [64], [128], [256]]", OFFSET: 0.5,'
        + " ASPECT_RATIOS: [0.4, 1.3]}\n"
        + "  PIXEL_STD: !!python/tuple [57.375, 57.12, 58.395]\n"
        + "  RPN:\n    CONV_DIMS: (-1, 64)\n",
    )

    config = read_config(path)

    assert config.preprocess.std == (57.375, 57.12, 58.395)
    assert list(config.design.anchor_sizes_px) == [(16,), (32,), (64,), (128,), (256,)]
    assert list(config.design.aspect_ratios) == [(0.4, 1.3)] * 5
    assert config.design.anchor_offset == 0.5
    assert config.design.rpn_channels == (256, 64)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [FOLDER/made]",
        "!!python/object/new:os.mkdir [FOLDER/made]",
        "!!python/name:os.mkdir",
        "!!python/module:os",
    ],
)
def test_objects_of_python_are_refused_and_not_made(tmp_path: Path, text: str) -> None:
    text = text.replace("FOLDER", str(tmp_path))
    with pytest.raises(SettingsError, match="python/"):
        read_config(write(tmp_path, f"{ZOO}  WEIGHTS: {text}\n"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "a C4 model"),
        ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "a Cascade R-CNN"),
        ("MODEL.ROI_HEADS.NAME", "PointRendROIHeads", "PointRend"),
        ("MODEL.RESNETS.RES5_DILATION", 2, "a DC5 model"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "a rotated R-CNN"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "a rotated R-CNN"),
        ("MODEL.KEYPOINT_ON", True, "a Keypoint R-CNN"),
        ("MODEL.META_ARCHITECTURE", "RetinaNet", "a RetinaNet"),
        ("MODEL.META_ARCHITECTURE", "PanopticFPN", "a Panoptic FPN"),
        ("MODEL.META_ARCHITECTURE", "Mine", "'Mine'"),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True], "deformable"),
        ("MODEL.RESNETS.DEPTH", 18, "a ResNet-18"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone", "without a feature pyramid"),
        ("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], "MODEL.FPN.IN_FEATURES"),
        ("MODEL.FPN.NORM", "LN", "“LN”"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool", "“ROIPool”"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "sigmoid"),
        ("MODEL.MASK_ON", False, "a Faster R-CNN"),
        ("VERSION", 1, "version 1"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_config(changed(tmp_path, key, value))
    assert words in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.RESNETS.STRIDE_IN_1X1", "maybe"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 0),
        ("MODEL.ROI_HEADS.NUM_CLASSES", True),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "high"),
        ("MODEL.PIXEL_MEAN", [1.0, 2.0]),
        ("MODEL.FPN", 256),
        ("MODEL.RPN.CONV_DIMS", []),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [["big"]]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128, 256]]),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", 30),
        ("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
        ("INPUT.MIN_SIZE_TEST", 0),
        ("INPUT.FORMAT", "YUV"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        read_config(changed(tmp_path, key, value))
    assert key.rsplit(".", 1)[-1] in str(caught.value) or key.rsplit(".", 1)[0] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.py", "model = 1", "is a program"),
        ("config.yaml", "just text", "holds no table"),
        ("config.yaml", "MODEL: [1", "is not a config of plain values"),
        ("config.yaml", "MODEL: [1, 2]", "not a table of settings"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_config(write(tmp_path, text, name))


def test_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        read_config(tmp_path / "nowhere.yaml")


def test_all_detections_are_as_many_as_there_can_be(tmp_path: Path) -> None:
    config = read_config(changed(tmp_path, "TEST.DETECTIONS_PER_IMAGE", -1))
    assert config.max_instances == 1000 * 80


def test_a_longest_side_below_the_shortest_decides_alone(tmp_path: Path) -> None:
    preprocess = read_config(changed(tmp_path, "INPUT.MAX_SIZE_TEST", 600)).preprocess
    assert (preprocess.short_side_px, preprocess.max_side_px) == (600, 600)


norms = st.sampled_from(("", "BN", "GN"))
widths = st.sampled_from((8, 32, 96))
shares = st.floats(0.1, 0.9)
levels = st.lists(st.floats(0.25, 900), min_size=2, max_size=2).map(tuple)
designs = st.builds(
    ResNetDesign,
    depth=st.sampled_from((50, 101, 152)),
    groups=st.integers(1, 32),
    group_width=widths,
    stem_channels=widths,
    first_channels=widths,
    stride_in_1x1=st.booleans(),
    norm=norms,
    fpn_channels=widths,
    fpn_norm=norms,
    anchor_sizes_px=st.tuples(*[levels] * 5),
    aspect_ratios=st.tuples(*[levels] * 5),
    anchor_offset=shares,
    rpn_channels=st.lists(widths, min_size=1, max_size=3).map(tuple),
    candidates=st.integers(1, 2000),
    proposals=st.integers(1, 2000),
    sampled_boxes=st.integers(1, 1024),
    proposal_nms_iou=shares,
    min_proposal_px=st.sampled_from((0.0, 8.0)),
    nms_iou=shares,
    box_weights=st.tuples(*[st.floats(1, 20)] * 4),
    box_grid=st.integers(1, 14),
    box_sampling=st.integers(0, 4),
    box_aligned=st.booleans(),
    box_channels=st.integers(0, 4).map(lambda count: (32,) * count),
    box_features=st.integers(1, 3).map(lambda count: (64,) * count),
    box_norm=norms,
    mask_grid=st.integers(1, 28),
    mask_aligned=st.booleans(),
    mask_channels=st.integers(0, 8).map(lambda count: (16,) * count),
    mask_features=st.just(16),
    mask_norm=norms,
)
preprocesses = st.builds(
    Preprocess,
    channel_order=st.sampled_from(("bgr", "rgb")),
    short_side_px=st.integers(32, 800),
    max_side_px=st.integers(800, 2000),
    mean=st.tuples(*[st.floats(0, 255)] * 3),
    std=st.tuples(*[st.floats(1, 80)] * 3),
)


@given(
    design=designs,
    preprocess=preprocesses,
    classes=st.integers(1, 1203),
    min_score=st.floats(0, 1),
)
def test_a_written_config_reads_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    design: ResNetDesign,
    preprocess: Preprocess,
    classes: int,
    min_score: float,
) -> None:
    config = Detectron2Config(design, classes, preprocess, min_score, max_instances=7)
    text = write_config(config, weights="model_final.pth")
    path = write(tmp_path_factory.getbasetemp(), text, "written.yaml")
    assert read_config(path) == config
    assert yaml.safe_load(text)["MODEL"]["WEIGHTS"] == "model_final.pth"


def test_averaged_levels_are_noted(tmp_path: Path) -> None:
    plain = read_config(changed(tmp_path, "MODEL.FPN.FUSE_TYPE", "sum"))
    averaged = read_config(changed(tmp_path, "MODEL.FPN.FUSE_TYPE", "avg"))
    assert averaged == replace(plain, averaged=True)
