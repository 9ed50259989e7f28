"""torchvision's Mask R-CNNs: their weights, names and classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.models import WeightsEnum
from torchvision.models.detection import (
    MaskRCNN,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)

from maskserve.core.categories import Categories, nearest_name
from maskserve.core.errors import DownloadError, ParameterError
from maskserve.core.manifest import Postprocess, Preprocess
from maskserve.models.checkpoint import read_weights

__all__ = [
    "COCO",
    "TORCHVISION_MODELS",
    "TorchvisionModel",
    "fetch_weights",
    "load_torchvision",
    "modern_names",
]

_LABELS: tuple[str, ...] = tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
_UNUSED = ("__background__", "N/A")

COCO = Categories(
    tuple(name for name in _LABELS if name not in _UNUSED),
    tuple(label for label, name in enumerate(_LABELS) if name not in _UNUSED),
)
"""COCO's 80 classes with their ids, which go up to 90 since some are not used."""

_V1, _V2 = "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"
_BUILDERS: dict[str, Callable[..., MaskRCNN]] = {
    _V1: maskrcnn_resnet50_fpn,
    _V2: maskrcnn_resnet50_fpn_v2,
}
_WEIGHTS: dict[str, WeightsEnum] = {
    _V1: MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    _V2: MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}

TORCHVISION_MODELS = tuple(_BUILDERS)
"""Names of the models, as torchvision calls their functions."""

_ONLY_IN_V2 = "rpn.head.conv.1.0.weight"
_SCORES = "roi_heads.box_predictor.cls_score.weight"
_COUNTER = "num_batches_tracked"
_LEAST_SCORE = 1e-30  # of which the logarithm is taken

# Names of layers before torchvision 0.13, which its published COCO weights still have. Those of
# the mask head count from 1, see _modern_name.
_OLD_NAMES = (
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)"), r"\1.0.0.\2"),
    (
        re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"),
        r"\1.0.\2",
    ),
)
_OLD_MASK_LAYER = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class TorchvisionModel:
    """A Mask R-CNN of torchvision and all that a manifest says of it.

    Attributes:
        model: In evaluation mode. Classes that are never used are left out of its heads.
        categories: Its classes.
        classes_from: ``COCO``, ``given``, or ``numbered`` where their names are not known.
        preprocess: torchvision's size, with the resizing of this package.
        postprocess: torchvision's threshold and limit.
        weights: Where the weights come from, in words.
    """

    model: MaskRCNN
    categories: Categories
    classes_from: str
    preprocess: Preprocess
    postprocess: Postprocess
    weights: str


def load_torchvision(
    name: str,
    weights: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    progress: bool = False,
) -> TorchvisionModel:
    """A Mask R-CNN of torchvision.

    Args:
        name: One of :data:`TORCHVISION_MODELS`.
        weights: A checkpoint of such a model, of COCO or of classes of your own; by default
            torchvision's COCO weights, which it downloads once.
        classes: Names, without the background, in the order of training. By default COCO's if
            there are as many labels, else numbers.
        progress: Whether torchvision shows its download on stderr.

    Raises:
        ParameterError: There is no such model, the checkpoint cannot be read or is of another
            model, or the number of classes is another one.
        DownloadError: The weights cannot be downloaded.
    """
    if name not in _BUILDERS:
        nearest = nearest_name(name, _BUILDERS)
        guess = f"Did you mean “{nearest}”? " if nearest else ""
        raise ParameterError(
            f"“{name}” is not a Mask R-CNN of torchvision.",
            hint=f"{guess}Known: {', '.join(_BUILDERS)}.",
        )
    if weights is None:
        state = fetch_weights(_WEIGHTS[name], progress=progress)
        where, words = str(_WEIGHTS[name]), f"torchvision {_WEIGHTS[name]}"
    else:
        state, where, words = read_weights(weights), str(weights), weights.name
    state = modern_names(state)
    _check_kind(state, name, where)
    labels = len(state[_SCORES])
    categories, classes_from = _classes(labels, classes, where)
    model = _BUILDERS[name](weights=None, weights_backbone=None, num_classes=labels)
    _load(model, state, name=name, where=where)
    _fold_norms(model.roi_heads)
    if labels > len(categories) + 1:
        _leave_out_unused(model, categories.category_ids)
    return TorchvisionModel(
        model=model.eval(),
        categories=categories,
        classes_from=classes_from,
        preprocess=Preprocess(short_side_px=800, max_side_px=1333),
        postprocess=Postprocess(min_score=0.05, max_instances=100),
        weights=words,
    )


def fetch_weights(weights: WeightsEnum, *, progress: bool = False) -> dict[str, Tensor]:
    """torchvision's own download, kept in torch's cache, its hash checked.

    Raises:
        DownloadError: It cannot be had.
    """
    file = str(weights.url).rsplit("/", 1)[-1]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=progress, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash is another one
        raise DownloadError(
            f"torchvision could not download {file}: {error}.",
            hint=f"Without internet, put that file into {torch.hub.get_dir()}/checkpoints, "
            "or name a file of weights.",
        ) from None
    return state


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's detection models under the names that its layers have today."""
    return {_modern_name(name): tensor for name, tensor in state.items()}


def _modern_name(name: str) -> str:
    layer = _OLD_MASK_LAYER.fullmatch(name)
    if layer:
        return f"roi_heads.mask_head.{int(layer[1]) - 1}.0.{layer[2]}"
    for pattern, modern in _OLD_NAMES:
        if pattern.fullmatch(name):
            return pattern.sub(modern, name)
    return name


def _check_kind(state: Mapping[str, Tensor], name: str, where: str) -> None:
    kind = _V2 if _ONLY_IN_V2 in state else _V1
    if _SCORES not in state or "rpn.head.conv.0.0.weight" not in state:
        raise ParameterError(
            f"{where} is not a checkpoint of torchvision's Mask R-CNN: it has "
            f"{', '.join(list(state)[:3])}.",
            hint="Save one with torch.save(model.state_dict(), FILE).",
        )
    if kind != name:
        raise ParameterError(f"{where} is of {kind}, not of {name}.", hint=f"Import it as {kind}.")


def _classes(labels: int, given: Sequence[str] | None, where: str) -> tuple[Categories, str]:
    """Classes of a model with so many labels, the background among them."""
    if given is not None:
        if len(given) != labels - 1 or len(set(given)) != len(given):
            raise ParameterError(
                f"{where} has {labels - 1} classes beside the background, but the names given are "
                f"{len(given)}{'' if len(set(given)) == len(given) else ', not all different'}.",
                hint="Name every class once, in the order of training.",
            )
        return Categories.from_names(given), "given"
    if labels == len(_LABELS):
        return COCO, "COCO"
    return Categories.from_names(f"class_{index}" for index in range(labels - 1)), "numbered"


def _load(model: MaskRCNN, state: dict[str, Tensor], *, name: str, where: str) -> None:
    own = model.state_dict()
    if name == _V1 and f"backbone.body.bn1.{_COUNTER}" not in state:
        # Norms that were frozen in training count no batches. torchvision's own model, and
        # whatever was trained from it, adds nothing to their variance.
        for layer in model.backbone.body.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = 0.0
    for counter in [key for key in own if key.endswith(_COUNTER)]:
        state.setdefault(counter, own[counter])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1].split())
        raise ParameterError(
            f"{where} does not fit torchvision's {name}: {reason[:300]}",
            hint="Models with other anchors, heads or backbones are not supported.",
        ) from None


def _fold_norms(heads: nn.Module) -> None:
    """Make norms a part of the convolutions before them.

    PyTorch exports no batch norm of a batch whose size depends on what was found.
    """
    heads.eval()
    for parent in [layer for layer in heads.modules() if isinstance(layer, nn.Sequential)]:
        for position, (conv, norm) in enumerate(pairwise(list(parent))):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                parent[position] = fuse_conv_bn_eval(conv, norm)
                parent[position + 1] = nn.Identity()


def _leave_out_unused(model: MaskRCNN, labels: Sequence[int]) -> None:
    """Keep these labels only, and the background as the first."""
    heads = model.roi_heads
    kept = torch.tensor([0, *labels])
    heads.box_predictor = _UsedClasses(
        heads.box_predictor.cls_score, heads.box_predictor.bbox_pred, kept
    )
    masks = heads.mask_predictor.mask_fcn_logits
    fewer = nn.Conv2d(masks.in_channels, len(kept), 1)
    fewer.weight = nn.Parameter(masks.weight[kept])
    fewer.bias = nn.Parameter(masks.bias[kept])
    heads.mask_predictor.mask_fcn_logits = fewer


class _UsedClasses(nn.Module):
    """torchvision's box predictor without some labels, the scores of all others unchanged.

    What the labels that are left out would score is added to the background.
    """

    kept: Tensor
    others: Tensor

    def __init__(self, cls_score: nn.Linear, bbox_pred: nn.Linear, kept: Tensor) -> None:
        super().__init__()
        self.cls_score = cls_score
        rows = (4 * kept[:, None] + torch.arange(4)).flatten()
        self.bbox_pred = nn.Linear(bbox_pred.in_features, len(rows))
        self.bbox_pred.weight = nn.Parameter(bbox_pred.weight[rows])
        self.bbox_pred.bias = nn.Parameter(bbox_pred.bias[rows])
        is_kept = torch.zeros(cls_score.out_features, dtype=torch.bool)
        is_kept[kept] = True
        self.register_buffer("kept", kept[1:], persistent=False)
        rest = torch.cat([kept[:1], (~is_kept).nonzero()[:, 0]])
        self.register_buffer("others", rest, persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, classes + 1) and box deltas (N, 4 (classes + 1))."""
        scores = self.cls_score(features).softmax(dim=1)
        background = scores[:, self.others].sum(dim=1, keepdim=True)
        scores = torch.cat([background, scores[:, self.kept]], dim=1)
        return scores.clamp(min=_LEAST_SCORE).log(), self.bbox_pred(features)
