"""What a config of Detectron2 says of a Mask R-CNN, and the config that says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from maskserve.core.errors import SettingsError
from maskserve.core.manifest import Preprocess
from maskserve.models.detectron2.settings import Section, read_yaml
from maskserve.models.pyramid import STRIDES
from maskserve.models.resnet import Norm, ResNetDesign

__all__ = ["Detectron2Config", "read_config", "write_config"]

_SUPPORTED = (
    "Mask R-CNN with a ResNet-50, -101 or -152 (or ResNeXt) and a feature pyramid is supported."
)
_NORMS: dict[str, Norm] = {"": "", "BN": "BN", "SyncBN": "BN", "FrozenBN": "BN", "GN": "GN"}
_NORM_NAMES: dict[Norm, str] = {"": "", "BN": "FrozenBN", "GN": "GN"}
_LEVELS = len(STRIDES)


@dataclass(frozen=True, slots=True)
class Detectron2Config:
    """Of a config, what decides the answers.

    Attributes:
        design: The network.
        classes: Their number, without the background.
        preprocess: Resizing at test time, order of channels, and normalisation.
        min_score: Weaker detections are dropped.
        max_instances: Detections of a photo.
        averaged: Whether pyramid levels are averaged (``FUSE_TYPE: avg``) rather than added.
        datasets: Names of the data sets for training and test.
    """

    design: ResNetDesign
    classes: int
    preprocess: Preprocess
    min_score: float
    max_instances: int
    averaged: bool = False
    datasets: tuple[str, ...] = ()


def read_config(path: Path, *, masks: bool = True) -> Detectron2Config:
    """Read a ``.yaml`` config: a dumped one, one of the model zoo, or one of your own.

    It is merged over its ``_BASE_`` and Detectron2's defaults. The zoo's ``Base-RCNN-FPN.yaml``
    is known and need not be there.

    Args:
        path: Of the config.
        masks: Whether the model must have masks; a training may start from one without.

    Raises:
        SettingsError: The file cannot be read, or the config describes what is not supported;
            names the setting.
    """
    config = Section(read_yaml(path), path)
    _refuse_unsupported(config)
    if masks:
        _refuse_boxes_alone(config)
    max_instances = config.integer("TEST.DETECTIONS_PER_IMAGE", least=-1)
    classes = config.integer("MODEL.ROI_HEADS.NUM_CLASSES")
    design = _read_design(config)
    return Detectron2Config(
        design=design,
        classes=classes,
        preprocess=_read_preprocess(config),
        min_score=config.number("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
        max_instances=max_instances if max_instances > 0 else design.proposals * classes,
        averaged=_one_of(config, "MODEL.FPN.FUSE_TYPE", ("sum", "avg")) == "avg",
        datasets=config.names("DATASETS.TRAIN") + config.names("DATASETS.TEST"),
    )


def write_config(config: Detectron2Config, *, weights: str) -> str:
    """The YAML of a config, for Detectron2's ``merge_from_file``.

    Args:
        config: Of a model whose levels are added.
        weights: Name of the checkpoint.
    """
    design, preprocess = config.design, config.preprocess
    settings = {
        "VERSION": 2,
        "MODEL": {
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "WEIGHTS": weights,
            "MASK_ON": True,
            "PIXEL_MEAN": list(preprocess.mean),
            "PIXEL_STD": list(preprocess.std),
            "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
            "RESNETS": {
                "DEPTH": design.depth,
                "OUT_FEATURES": _features("res", 2, 5),
                "NUM_GROUPS": design.groups,
                "WIDTH_PER_GROUP": design.group_width,
                "NORM": _NORM_NAMES[design.norm],
                "STRIDE_IN_1X1": design.stride_in_1x1,
                "RES2_OUT_CHANNELS": design.first_channels,
                "STEM_OUT_CHANNELS": design.stem_channels,
            },
            "FPN": {
                "IN_FEATURES": _features("res", 2, 5),
                "OUT_CHANNELS": design.fpn_channels,
                "NORM": _NORM_NAMES[design.fpn_norm],
            },
            "PROPOSAL_GENERATOR": {"MIN_SIZE": _whole(design.min_proposal_px)},
            "ANCHOR_GENERATOR": {
                "SIZES": [list(sizes) for sizes in design.anchor_sizes_px],
                "ASPECT_RATIOS": [list(ratios) for ratios in design.aspect_ratios],
                "OFFSET": design.anchor_offset,
            },
            "RPN": {
                "IN_FEATURES": _features("p", 2, 6),
                "BBOX_REG_WEIGHTS": list(design.rpn_box_weights),
                "PRE_NMS_TOPK_TEST": design.candidates,
                "POST_NMS_TOPK_TEST": design.proposals,
                "NMS_THRESH": design.proposal_nms_iou,
                "CONV_DIMS": list(design.rpn_channels),
            },
            "ROI_HEADS": {
                "NAME": "StandardROIHeads",
                "NUM_CLASSES": config.classes,
                "IN_FEATURES": _features("p", 2, 5),
                "BATCH_SIZE_PER_IMAGE": design.sampled_boxes,
                "SCORE_THRESH_TEST": config.min_score,
                "NMS_THRESH_TEST": design.nms_iou,
            },
            "ROI_BOX_HEAD": {
                "NAME": "FastRCNNConvFCHead",
                "BBOX_REG_WEIGHTS": list(design.box_weights),
                "POOLER_RESOLUTION": design.box_grid,
                "POOLER_SAMPLING_RATIO": design.box_sampling,
                "POOLER_TYPE": _pooler_type(aligned=design.box_aligned),
                "NUM_FC": len(design.box_features),
                "FC_DIM": (*design.box_features, 1)[0],
                "NUM_CONV": len(design.box_channels),
                "CONV_DIM": (*design.box_channels, 1)[0],
                "NORM": _NORM_NAMES[design.box_norm],
            },
            "ROI_MASK_HEAD": {
                "NAME": "MaskRCNNConvUpsampleHead",
                "POOLER_RESOLUTION": design.mask_grid,
                "POOLER_SAMPLING_RATIO": design.mask_sampling,
                "POOLER_TYPE": _pooler_type(aligned=design.mask_aligned),
                "NUM_CONV": len(design.mask_channels),
                "CONV_DIM": design.mask_features,
                "NORM": _NORM_NAMES[design.mask_norm],
            },
        },
        "INPUT": {
            "FORMAT": preprocess.channel_order.upper(),
            "MIN_SIZE_TEST": preprocess.short_side_px,
            "MAX_SIZE_TEST": preprocess.max_side_px,
        },
        "TEST": {"DETECTIONS_PER_IMAGE": config.max_instances},
    }
    return yaml.safe_dump(settings, sort_keys=False, default_flow_style=None)


def _features(letter: str, first: int, last: int) -> list[str]:
    return [f"{letter}{level}" for level in range(first, last + 1)]


def _whole(value: float) -> float:
    """Detectron2 takes no 0.0 where its default is 0."""
    return int(value) if value == int(value) else value


def _pooler_type(*, aligned: bool) -> str:
    return "ROIAlignV2" if aligned else "ROIAlign"


def _read_design(config: Section) -> ResNetDesign:
    fpn = config.integer("MODEL.FPN.OUT_CHANNELS")
    box, mask = "MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD"
    mask_channels = config.integer(f"{mask}.CONV_DIM")
    four = cast(
        "Callable[[str], tuple[float, float, float, float]]", lambda k: config.numbers(k, 4)
    )
    design = ResNetDesign(
        depth=cast("Literal[50, 101, 152]", config.integer("MODEL.RESNETS.DEPTH")),
        groups=config.integer("MODEL.RESNETS.NUM_GROUPS"),
        group_width=config.integer("MODEL.RESNETS.WIDTH_PER_GROUP"),
        stem_channels=config.integer("MODEL.RESNETS.STEM_OUT_CHANNELS"),
        first_channels=config.integer("MODEL.RESNETS.RES2_OUT_CHANNELS"),
        stride_in_1x1=config.flag("MODEL.RESNETS.STRIDE_IN_1X1"),
        norm=_norm(config, "MODEL.RESNETS.NORM"),
        fpn_channels=fpn,
        fpn_norm=_norm(config, "MODEL.FPN.NORM"),
        anchor_sizes_px=_levels(config, "MODEL.ANCHOR_GENERATOR.SIZES"),
        aspect_ratios=_levels(config, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
        anchor_offset=config.number("MODEL.ANCHOR_GENERATOR.OFFSET"),
        rpn_channels=_rpn_channels(config, fpn),
        rpn_box_weights=four("MODEL.RPN.BBOX_REG_WEIGHTS"),
        candidates=config.integer("MODEL.RPN.PRE_NMS_TOPK_TEST"),
        proposals=config.integer("MODEL.RPN.POST_NMS_TOPK_TEST"),
        sampled_boxes=config.integer("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"),
        proposal_nms_iou=config.number("MODEL.RPN.NMS_THRESH"),
        min_proposal_px=config.number("MODEL.PROPOSAL_GENERATOR.MIN_SIZE"),
        nms_iou=config.number("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
        box_weights=four(f"{box}.BBOX_REG_WEIGHTS"),
        box_grid=config.integer(f"{box}.POOLER_RESOLUTION"),
        box_sampling=config.integer(f"{box}.POOLER_SAMPLING_RATIO", least=0),
        box_aligned=_aligned(config, f"{box}.POOLER_TYPE"),
        box_channels=(config.integer(f"{box}.CONV_DIM"),)
        * config.integer(f"{box}.NUM_CONV", least=0, most=64),
        box_features=(config.integer(f"{box}.FC_DIM"),)
        * config.integer(f"{box}.NUM_FC", least=0, most=64),
        box_norm=_norm(config, f"{box}.NORM"),
        mask_grid=config.integer(f"{mask}.POOLER_RESOLUTION"),
        mask_sampling=config.integer(f"{mask}.POOLER_SAMPLING_RATIO", least=0),
        mask_aligned=_aligned(config, f"{mask}.POOLER_TYPE"),
        mask_channels=(mask_channels,) * config.integer(f"{mask}.NUM_CONV", least=0, most=64),
        mask_features=mask_channels,
        mask_norm=_norm(config, f"{mask}.NORM"),
    )
    _check_widths(config, design)
    return design


def _check_widths(config: Section, design: ResNetDesign) -> None:
    if design.first_channels % 4:
        raise SettingsError(
            f"{config.path}: MODEL.RESNETS.RES2_OUT_CHANNELS is {design.first_channels}; "
            "only multiples of 4 are supported."
        )
    counts = {
        len(sizes) * len(ratios)
        for sizes, ratios in zip(design.anchor_sizes_px, design.aspect_ratios, strict=True)
    }
    if len(counts) != 1:
        raise SettingsError(
            f"{config.path}: MODEL.ANCHOR_GENERATOR gives its levels different numbers of anchors."
        )
    if not (design.box_channels or design.box_features):
        raise SettingsError(f"{config.path}: MODEL.ROI_BOX_HEAD has neither NUM_CONV nor NUM_FC.")


def _rpn_channels(config: Section, fpn: int) -> tuple[int, ...]:
    key = "MODEL.RPN.CONV_DIMS"
    widths = config.get(key)
    if not (
        isinstance(widths, list | tuple)
        and widths
        and all(isinstance(w, int) and (w > 0 or w == -1) for w in widths)
    ):
        raise SettingsError(f"{config.path}: {key} is “{widths}”, not a list of widths.")
    found = [fpn]
    for width in widths:
        found.append(found[-1] if width == -1 else width)  # -1: as the one before
    return tuple(found[1:])


def _read_preprocess(config: Section) -> Preprocess:
    short = config.integer("INPUT.MIN_SIZE_TEST", least=32, most=4096)
    longest = config.integer("INPUT.MAX_SIZE_TEST", least=32, most=8192)
    order = _one_of(config, "INPUT.FORMAT", ("BGR", "RGB"))
    three = cast("Callable[[str], tuple[float, float, float]]", lambda k: config.numbers(k, 3))
    return Preprocess(
        channel_order="bgr" if order == "BGR" else "rgb",
        short_side_px=min(short, longest),  # where it is longer, the longest side alone decides
        max_side_px=longest,
        mean=three("MODEL.PIXEL_MEAN"),
        std=three("MODEL.PIXEL_STD"),
    )


def _one_of(config: Section, key: str, known: tuple[str, ...]) -> str:
    value = config.text(key)
    if value not in known:
        raise SettingsError(f"{config.path}: {key} is “{value}”; known: {', '.join(known)}.")
    return value


def _norm(config: Section, key: str) -> Norm:
    value = config.text(key)
    if value not in _NORMS:
        raise SettingsError(
            f"{config.path}: {key} is “{value}”, which is not supported.",
            hint=f"Supported: none, {', '.join(name for name in _NORMS if name)}.",
        )
    return _NORMS[value]


def _aligned(config: Section, key: str) -> bool:
    value = config.text(key)
    if value not in ("ROIAlign", "ROIAlignV2"):
        raise SettingsError(
            f"{config.path}: {key} is “{value}”, which is not supported.",
            hint="Supported: ROIAlign and ROIAlignV2.",
        )
    return value == "ROIAlignV2"


def _levels(config: Section, key: str) -> tuple[tuple[float, ...], ...]:
    """A list of numbers for each level; a single list holds for all, as in Detectron2."""
    value: Any = config.get(key)
    if isinstance(value, list | tuple) and value:
        lists = value if isinstance(value[0], list | tuple) else [value]
        lists = list(lists) * (_LEVELS if len(lists) == 1 else 1)
        try:
            levels = tuple(tuple(float(size) for size in level) for level in lists)
        except (TypeError, ValueError):
            levels = ()
        if len(levels) == _LEVELS and all(size > 0 for level in levels for size in level):
            return levels
    raise SettingsError(
        f"{config.path}: {key} is “{value}”, not one list of numbers, or one for each of the "
        f"{_LEVELS} levels p2 to p6."
    )


def _refuse_unsupported(config: Section) -> None:
    """Name the first setting that makes another kind of model."""
    version = config.integer("VERSION", least=0)
    if version != 2:
        raise SettingsError(
            f"{config.path} is of version {version}; only version 2 is read.",
            hint="Detectron2 converts old configs: merge_from_file, then dump.",
        )
    for key, expected, other in _EXPECTED:
        found = config.get(key)
        found = list(found) if isinstance(found, tuple) else found
        if found != expected:
            name = other.get(str(found))
            raise SettingsError(
                f"{config.path} describes {name or 'a model that is not supported'}: "
                f"{key} is {found!r}, not {expected!r}.",
                hint=_SUPPORTED,
            )
    for key, what in _MUST_BE_OFF:
        if config.get(key) not in (False, [False] * 4, (False,) * 4):
            raise SettingsError(
                f"{config.path} describes {what}, which is not supported ({key}).", hint=_SUPPORTED
            )
    if config.get("MODEL.RESNETS.DEPTH") not in (50, 101, 152):
        raise SettingsError(
            f"{config.path} describes a ResNet-{config.get('MODEL.RESNETS.DEPTH')}, which is not "
            "supported (MODEL.RESNETS.DEPTH).",
            hint=_SUPPORTED,
        )


def _refuse_boxes_alone(config: Section) -> None:
    if not config.flag("MODEL.MASK_ON"):
        raise SettingsError(
            f"{config.path} describes a Faster R-CNN: MODEL.MASK_ON is false, so it finds boxes "
            "but no masks.",
            hint="maskserve serves masks. Train with MASK_ON: True, or start from these weights: "
            "maskserve train --init.",
        )


_MUST_BE_OFF = (
    ("MODEL.KEYPOINT_ON", "a Keypoint R-CNN"),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", "a ResNet with deformable convolutions"),
    ("MODEL.LOAD_PROPOSALS", "a Fast R-CNN with proposals from a file"),
    ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "a classifier with a sigmoid for each class"),
)

# What must have which value, and models that have another one. In the order in which a model is
# best named by: its kind first, then its backbone, then its parts.
_EXPECTED: tuple[tuple[str, object, dict[str, str]], ...] = (
    (
        "MODEL.META_ARCHITECTURE",
        "GeneralizedRCNN",
        {
            "RetinaNet": "a RetinaNet, which has no masks",
            "PanopticFPN": "a Panoptic FPN",
            "SemanticSegmentor": "a semantic segmentor",
            "ProposalNetwork": "a network for proposals alone",
            "FCOS": "an FCOS, which has no masks",
        },
    ),
    (
        "MODEL.PROPOSAL_GENERATOR.NAME",
        "RPN",
        {"RRPN": "a rotated R-CNN", "PrecomputedProposals": "a Fast R-CNN"},
    ),
    (
        "MODEL.ANCHOR_GENERATOR.NAME",
        "DefaultAnchorGenerator",
        {"RotatedAnchorGenerator": "a rotated R-CNN"},
    ),
    (
        "MODEL.ROI_HEADS.NAME",
        "StandardROIHeads",
        {
            "Res5ROIHeads": "a C4 model, whose heads are the ResNet's last stage",
            "CascadeROIHeads": "a Cascade R-CNN",
            "RROIHeads": "a rotated R-CNN",
            "PointRendROIHeads": "a PointRend model",
        },
    ),
    ("MODEL.RESNETS.RES5_DILATION", 1, {"2": "a DC5 model, with a dilated last stage"}),
    (
        "MODEL.BACKBONE.NAME",
        "build_resnet_fpn_backbone",
        {
            "build_resnet_backbone": "a model without a feature pyramid (C4 or DC5)",
            "build_retinanet_resnet_fpn_backbone": "a RetinaNet's pyramid",
        },
    ),
    ("MODEL.RESNETS.OUT_FEATURES", _features("res", 2, 5), {}),
    ("MODEL.FPN.IN_FEATURES", _features("res", 2, 5), {}),
    ("MODEL.RPN.IN_FEATURES", _features("p", 2, 6), {}),
    ("MODEL.RPN.HEAD_NAME", "StandardRPNHead", {}),
    ("MODEL.ROI_HEADS.IN_FEATURES", _features("p", 2, 5), {}),
    ("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", {}),
    (
        "MODEL.ROI_MASK_HEAD.NAME",
        "MaskRCNNConvUpsampleHead",
        {"PointRendMaskHead": "a PointRend model", "CoarseMaskHead": "a PointRend model"},
    ),
)
