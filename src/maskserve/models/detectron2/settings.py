"""Detectron2's config files as nested dictionaries: YAML, ``_BASE_``, defaults."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from maskserve.core.errors import SettingsError

__all__ = ["Section", "read_yaml"]

_BASE = "_BASE_"
_DEEPEST = 16
"""Levels of ``_BASE_``; the model zoo has two."""

# Detectron2's defaults (detectron2/config/defaults.py) of what matters to a network at test time.
_DEFAULTS: dict[str, Any] = {
    "VERSION": 2,
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": False,
        "KEYPOINT_ON": False,
        "LOAD_PROPOSALS": False,
        "PIXEL_MEAN": [103.53, 116.28, 123.675],
        "PIXEL_STD": [1.0, 1.0, 1.0],
        "BACKBONE": {"NAME": "build_resnet_backbone"},
        "RESNETS": {
            "DEPTH": 50,
            "OUT_FEATURES": ["res4"],
            "NUM_GROUPS": 1,
            "NORM": "FrozenBN",
            "WIDTH_PER_GROUP": 64,
            "STRIDE_IN_1X1": True,
            "RES5_DILATION": 1,
            "RES2_OUT_CHANNELS": 256,
            "STEM_OUT_CHANNELS": 64,
            "DEFORM_ON_PER_STAGE": [False] * 4,
        },
        "FPN": {"IN_FEATURES": [], "OUT_CHANNELS": 256, "NORM": "", "FUSE_TYPE": "sum"},
        "PROPOSAL_GENERATOR": {"NAME": "RPN", "MIN_SIZE": 0},
        "ANCHOR_GENERATOR": {
            "NAME": "DefaultAnchorGenerator",
            "SIZES": [[32, 64, 128, 256, 512]],
            "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
            "OFFSET": 0.0,
        },
        "RPN": {
            "HEAD_NAME": "StandardRPNHead",
            "IN_FEATURES": ["res4"],
            "BBOX_REG_WEIGHTS": [1.0] * 4,
            "PRE_NMS_TOPK_TEST": 6000,
            "POST_NMS_TOPK_TEST": 1000,
            "NMS_THRESH": 0.7,
            "CONV_DIMS": [-1],
        },
        "ROI_HEADS": {
            "NAME": "Res5ROIHeads",
            "NUM_CLASSES": 80,
            "IN_FEATURES": ["res4"],
            "BATCH_SIZE_PER_IMAGE": 512,
            "SCORE_THRESH_TEST": 0.05,
            "NMS_THRESH_TEST": 0.5,
        },
        "ROI_BOX_HEAD": {
            "NAME": "",
            "BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
            "POOLER_RESOLUTION": 14,
            "POOLER_SAMPLING_RATIO": 0,
            "POOLER_TYPE": "ROIAlignV2",
            "NUM_FC": 0,
            "FC_DIM": 1024,
            "NUM_CONV": 0,
            "CONV_DIM": 256,
            "NORM": "",
            "USE_SIGMOID_CE": False,
        },
        "ROI_MASK_HEAD": {
            "NAME": "MaskRCNNConvUpsampleHead",
            "POOLER_RESOLUTION": 14,
            "POOLER_SAMPLING_RATIO": 0,
            "POOLER_TYPE": "ROIAlignV2",
            "NUM_CONV": 0,
            "CONV_DIM": 256,
            "NORM": "",
        },
    },
    "INPUT": {"FORMAT": "BGR", "MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333},
    "DATASETS": {"TRAIN": [], "TEST": []},
    "TEST": {"DETECTIONS_PER_IMAGE": 100},
}

# configs/Base-RCNN-FPN.yaml, on which all FPN models of the zoo rest. Whoever has fetched such a
# model's own config seldom has this file too.
_BASE_RCNN_FPN: dict[str, Any] = {
    "MODEL": {
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]]},
        "RPN": {"IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "PRE_NMS_TOPK_TEST": 1000},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NUM_CONV": 4},
    },
    "DATASETS": {"TRAIN": ["coco_2017_train"], "TEST": ["coco_2017_val"]},
}
_KNOWN_BASES: dict[str, dict[str, Any]] = {
    "Base-RCNN-FPN.yaml": _BASE_RCNN_FPN,
    # Of the others, what they are refused by.
    "Base-RCNN-C4.yaml": {"MODEL": {"ROI_HEADS": {"NAME": "Res5ROIHeads"}}},
    "Base-RCNN-DilatedC5.yaml": {
        "MODEL": {"RESNETS": {"RES5_DILATION": 2}, "ROI_HEADS": {"NAME": "StandardROIHeads"}}
    },
    "Base-RetinaNet.yaml": {"MODEL": {"META_ARCHITECTURE": "RetinaNet"}},
    "Base-Panoptic-FPN.yaml": {"MODEL": {"META_ARCHITECTURE": "PanopticFPN"}},
    "Base-Keypoint-RCNN-FPN.yaml": {"MODEL": {**_BASE_RCNN_FPN["MODEL"], "KEYPOINT_ON": True}},
}


class _Loader(yaml.SafeLoader):
    """Plain YAML, and the tuples that Detectron2 writes; every other Python object is refused."""


def _read_tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _read_tuple)


def read_yaml(path: Path) -> dict[str, Any]:
    """A config with its ``_BASE_`` files, over Detectron2's defaults.

    Raises:
        SettingsError: A file cannot be read, is not YAML of plain values, or bases go in circles.
    """
    return _merged(_DEFAULTS, _read_with_bases(path, ()), where=path)


def _read_with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above or len(above) == _DEEPEST:
        raise SettingsError(f"{path} is a {_BASE} of itself, or of too many others.")
    values = _load(path, asked_by=above[-1] if above else None)
    bases = values.pop(_BASE, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merged(merged, _read_base(path, str(base), above), where=path)
    return _merged(merged, values, where=path)


def _read_base(path: Path, base: str, above: tuple[Path, ...]) -> dict[str, Any]:
    place = path.parent / Path(base).expanduser()
    if not place.is_file() and place.name in _KNOWN_BASES:
        return _KNOWN_BASES[place.name]
    return _read_with_bases(place, (*above, path.resolve()))


def _load(path: Path, *, asked_by: Path | None) -> dict[str, Any]:
    if path.suffix == ".py":
        raise SettingsError(
            f"{path} is a program, as Detectron2's new baselines have, and is not run.",
            hint="Only .yaml configs are read. Detectron2 writes one with cfg.dump().",
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        asked = f" It is the {_BASE} of {asked_by}." if asked_by else ""
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.{asked}",
            hint="Put the file there, or write a config that needs no other: cfg.dump() in "
            "Detectron2, or the config.yaml of the training's output folder."
            if asked_by
            else None,
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"{path} is not a config of plain values: {reason}.",
            hint="Objects of Python in a config are not made; only lists, tables, numbers and "
            "text are read.",
        ) from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} is not a config: it holds no table of settings.")
    return values


def _merged(base: Mapping[str, Any], values: Mapping[str, Any], *, where: Path) -> dict[str, Any]:
    """``values`` over ``base``, table by table; both stay as they are."""
    merged = deepcopy(dict(base))
    for key, value in values.items():
        old = merged.get(key)
        if isinstance(old, dict):
            if not isinstance(value, dict):
                raise SettingsError(f"{where}: {key} is “{value}”, not a table of settings.")
            merged[key] = _merged(old, value, where=where)
        else:
            merged[key] = deepcopy(value)
    return merged


class Section:
    """Typed access to the settings of a merged config.

    Args:
        values: The result of :func:`read_yaml`.
        path: Of the config, for messages.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self._values = values
        self.path = path

    def get(self, key: str) -> Any:
        """The value of a key such as ``MODEL.FPN.NORM``; text that reads as a value becomes it.

        Detectron2 does so too: ``(1, 2)`` is text to YAML.
        """
        value: Any = self._values
        for part in key.split("."):
            value = value[part]
        if isinstance(value, str):
            try:
                return ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return value
        return value

    def flag(self, key: str) -> bool:
        return bool(self._checked(key, isinstance(self.get(key), bool), "true or false"))

    def text(self, key: str) -> str:
        return str(self._checked(key, isinstance(self.get(key), str), "text"))

    def integer(self, key: str, *, least: int = 1, most: int = 2**31 - 1) -> int:
        value = self.get(key)
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return int(self._checked(key, good, f"a whole number from {least}" + _up_to(most)))

    def number(self, key: str, *, least: float = 0.0) -> float:
        value = self.get(key)
        return float(self._checked(key, _is_number(value) and value >= least, "a number"))

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        value = self.get(key)
        good = isinstance(value, list | tuple) and all(map(_is_number, value))
        good = good and len(value) == count
        return tuple(map(float, self._checked(key, good, f"{count} numbers")))

    def names(self, key: str) -> tuple[str, ...]:
        value = self.get(key)
        value = [value] if isinstance(value, str) else value
        good = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        return tuple(self._checked(key, good, "a list of names"))

    def _checked(self, key: str, good: bool, kind: str) -> Any:
        if not good:
            raise SettingsError(f"{self.path}: {key} is “{self.get(key)}”, not {kind}.")
        return self.get(key)


def _up_to(most: int) -> str:
    return f" to {most}" if most < 2**31 - 1 else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
