"""From a config and a checkpoint of Detectron2 to a model that is ready to be exported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from maskserve.core.errors import ParameterError, SettingsError
from maskserve.core.manifest import Postprocess, Preprocess
from maskserve.models.checkpoint import read_weights
from maskserve.models.detectron2.config import Detectron2Config, read_config
from maskserve.models.detectron2.weights import (
    add_levels,
    is_detectron2_state,
    translate_detectron2_state,
)
from maskserve.models.resnet import ResNetMaskRcnn

__all__ = ["METADATA_NAME", "Detectron2Model", "load_detectron2"]

METADATA_NAME = "metadata.json"
"""A file beside the config with ``thing_classes``, as Detectron2 calls the names of classes."""

_CITYSCAPES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_LEFT_OUT_OF_COCO = ("__background__", "N/A")


@dataclass(frozen=True, slots=True)
class Detectron2Model:
    """A model of Detectron2 and all that a manifest says of it.

    Attributes:
        model: In evaluation mode; takes the same place as one of ``build_model``.
        config: What was read of the config.
        classes: Names in the order of ``class_index``.
        classes_from: Where the names come from, in words, such as ``coco_2017_train``; begins
            with ``numbered`` where no names were found and ``class_0``, ``class_1``, … stand in.
        preprocess: Detectron2's resizing at test time.
        postprocess: Its threshold and limits at test time; ``max_instances`` is among them.
        backbone: Such as ``resnet50`` or ``resnext101_32x8d``.
    """

    model: ResNetMaskRcnn
    config: Detectron2Config
    classes: tuple[str, ...]
    classes_from: str
    preprocess: Preprocess
    postprocess: Postprocess
    backbone: str


def load_detectron2(
    config: Path, weights: Path, *, classes: Sequence[str] | None = None
) -> Detectron2Model:
    """Read a Mask R-CNN that was trained with Detectron2.

    Args:
        config: The ``.yaml`` that it was trained with: a dumped one, or one with ``_BASE_``.
        weights: Its ``.pth`` or ``.pkl``. Nothing but numbers is unpickled.
        classes: Names in the order of training. By default those of a ``metadata.json`` beside
            the config, or of the data set that the config names where it is a known one.

    Raises:
        SettingsError: The config cannot be read, or describes something that is not supported;
            names it.
        ParameterError: The checkpoint cannot be read or does not belong to the config, or the
            number of classes is another one.
    """
    found = read_config(config)
    names, names_from = _class_names(found, config, classes)
    model = ResNetMaskRcnn(found.design, found.classes, found.preprocess).eval()
    _load_state(model, read_weights(weights), found, where=weights)
    return Detectron2Model(
        model=model,
        config=found,
        classes=names,
        classes_from=names_from,
        preprocess=found.preprocess,
        postprocess=Postprocess(
            min_score=found.min_score,
            max_instances=found.max_instances,
            mask_size=2 * found.design.mask_grid,
        ),
        backbone=found.design.name,
    )


def _load_state(
    model: ResNetMaskRcnn, state: Mapping[str, Tensor], config: Detectron2Config, *, where: Path
) -> None:
    """Load weights of which every one must find its place."""
    if not is_detectron2_state(state):
        raise ParameterError(
            f"{where} is not a checkpoint of Detectron2's Mask R-CNN with a feature pyramid: it "
            f"has {_some(list(state))}.",
            hint="Checkpoints of ImageNet alone and of Detectron (1) have other names and are "
            "not read.",
        )
    if config.averaged:
        state = add_levels(state)
    translated = translate_detectron2_state(state)
    own = model.state_dict()
    missing = [
        name
        for name in own
        # Frozen batch norm in old checkpoints has no statistics: 0 and 1, as in a new layer.
        if name not in translated
        and not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    unknown = [name for name in translated if name not in own]
    other = [
        f"{name} of shape {list(tensor.shape)} where the config says {list(own[name].shape)}"
        for name, tensor in translated.items()
        if name in own and tensor.shape != own[name].shape
    ]
    for problems, words in ((missing, "lacks"), (unknown, "also has"), (other, "has")):
        if problems:
            raise ParameterError(
                f"{where} does not belong to this config: it {words} {_some(problems)}.",
                hint="Take the config that Detectron2 wrote beside the checkpoint in training.",
            )
    model.load_state_dict(translated, strict=False)


def _some(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _class_names(
    config: Detectron2Config, path: Path, given: Sequence[str] | None
) -> tuple[tuple[str, ...], str]:
    """Names of the classes, and where they come from."""
    if given is not None:
        return _checked(given, config.classes, "the names that were given"), "given"
    metadata = path.with_name(METADATA_NAME)
    if metadata.is_file():
        return _checked(_read_metadata(metadata), config.classes, str(metadata)), METADATA_NAME
    for dataset in config.datasets:
        known = _known_classes(dataset)
        if len(known) == config.classes:
            return known, dataset
    numbered = tuple(f"class_{index}" for index in range(config.classes))
    return numbered, "numbered, since neither config nor metadata.json names them"


def _checked(names: Sequence[str], count: int, where: str) -> tuple[str, ...]:
    if len(names) != count or len(set(names)) != count:
        raise ParameterError(
            f"The model has {count} classes, but {where} are {len(names)}"
            f"{'' if len(set(names)) == len(names) else ', not all different'}: "
            f"{_some(list(names), 10)}.",
            hint="Name every class once, in the order of training.",
        )
    return tuple(names)


def _read_metadata(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["thing_classes"]
    except (OSError, ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingsError(
            f"{path} holds no list “thing_classes” of names.",
            hint='It should read {"thing_classes": ["first", "second"]}. Without the file, '
            "give the names yourself.",
        )
    return names


def _known_classes(dataset: str) -> tuple[str, ...]:
    """Classes of a data set that Detectron2 itself registers, where they have masks."""
    if dataset.startswith(("coco_2014_", "coco_2017_")):
        labels = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
        return tuple(label for label in labels if label not in _LEFT_OUT_OF_COCO)
    if dataset.startswith("cityscapes_fine_instance_seg"):
        return _CITYSCAPES
    return ()
