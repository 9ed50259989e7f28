"""Names, order and form of Detectron2's weights, and of the same weights in torchvision's models.

========================  ==============================  =======================================
part                      Detectron2                      torchvision
========================  ==============================  =======================================
class scores              background last                 background first
box deltas, masks         no background                   background first; its values are unused
class-agnostic deltas     once                            the same for every class
========================  ==============================  =======================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "add_levels",
    "is_detectron2_state",
    "translate_detectron2_state",
    "translate_to_detectron2",
]

_MOST_LAYERS = 65
"""More than any head has."""

_BOX = "roi_heads.box_predictor"
_MASK = "roi_heads.mask_head.predictor"
_OWN_MASK = "roi_heads.mask_predictor.mask_fcn_logits"
_UNUSED = re.compile(r"pixel_(mean|std)|proposal_generator\.anchor_generator\..*")


def is_detectron2_state(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names that Detectron2 gives to a pyramid on a ResNet."""
    return any(name.startswith("backbone.bottom_up.") for name in state)


def translate_detectron2_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under torchvision's names, in its order of classes.

    Class-agnostic heads become class-specific ones that say the same for every class. What is
    not known keeps its name.

    Args:
        state: Of a Mask R-CNN with a ResNet and a pyramid whose levels are added; see
            :func:`add_levels` for the others.
    """
    names = _translations(state, _pairs(_layers(state)))
    found = {names[name]: tensor for name, tensor in state.items() if not _UNUSED.fullmatch(name)}
    if f"{_BOX}.cls_score.weight" in found:
        classes = len(found[f"{_BOX}.cls_score.weight"]) - 1
        with_background = partial(_with_background, classes=classes)
        for leaf in ("weight", "bias"):
            _change(found, f"{_BOX}.cls_score.{leaf}", lambda rows: rows.roll(1, dims=0))
            _change(found, f"{_BOX}.bbox_pred.{leaf}", partial(with_background, per_class=4))
            _change(found, f"{_OWN_MASK}.{leaf}", partial(with_background, per_class=1))
    return found


def translate_to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a torchvision-style ResNet Mask R-CNN under Detectron2's names.

    The inverse of :func:`translate_detectron2_state`, but for heads that were class-agnostic.

    Args:
        state: Of a ``ResNetMaskRcnn``.
    """
    pairs = [(ours, theirs) for theirs, ours in _pairs(_own_layers(state))]
    names = _translations(state, pairs)
    found = {
        names[name]: tensor.clone()
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    for leaf in ("weight", "bias"):
        _change(found, f"{_BOX}.cls_score.{leaf}", lambda rows: rows.roll(-1, dims=0))
        _change(found, f"{_BOX}.bbox_pred.{leaf}", lambda rows: rows[4:].clone())
        _change(found, f"{_MASK}.{leaf}", lambda rows: rows[1:].clone())
    return found


def add_levels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a pyramid that averages two levels, for one that adds them.

    A sum is twice the average. So every level is given twice the weight of the one above, and the
    convolution behind it divides by what has come together. Powers of two lose no digits.

    Args:
        state: Under Detectron2's names.
    """
    found = dict(state)
    for level in (2, 3, 4):
        gathered = 2.0 ** (5 - level)
        lateral, output = (f"backbone.fpn_{part}{level}" for part in ("lateral", "output"))
        last = f"{lateral}.norm" if f"{lateral}.norm.weight" in found else lateral
        for leaf in ("weight", "bias"):
            _change(found, f"{last}.{leaf}", partial(torch.mul, other=gathered / 2))
        _change(found, f"{output}.weight", partial(torch.div, other=gathered))
    return found


class _Layers(NamedTuple):
    """What names depend on besides the layer itself."""

    box_convs: int
    box_features: int
    several_rpn_convs: bool


def _pairs(layers: _Layers) -> list[tuple[str, str]]:
    """Names in Detectron2 and in torchvision; braces stand for the same text in both."""
    body, fpn, heads = "backbone.bottom_up", "backbone.fpn", "roi_heads"
    pairs = [
        (f"{body}.stem.conv1.norm.{{}}", "backbone.body.bn1.{}"),
        (f"{body}.stem.conv1.{{}}", "backbone.body.conv1.{}"),
        ("proposal_generator.rpn_head.objectness_logits.{}", "rpn.head.cls_logits.{}"),
        ("proposal_generator.rpn_head.anchor_deltas.{}", "rpn.head.bbox_pred.{}"),
        (f"{_BOX}.{{}}.{{}}", f"{_BOX}.{{}}.{{}}"),
        (f"{heads}.mask_head.deconv.{{}}", f"{heads}.mask_predictor.conv5_mask.{{}}"),
        (f"{_MASK}.{{}}", f"{_OWN_MASK}.{{}}"),
    ]
    for stage in range(1, 5):
        block, ours = f"{body}.res{stage + 1}.{{}}", f"backbone.body.layer{stage}.{{}}"
        pairs += [
            (f"{block}.shortcut.norm.{{}}", f"{ours}.downsample.1.{{}}"),
            (f"{block}.shortcut.{{}}", f"{ours}.downsample.0.{{}}"),
            (f"{block}.conv{{}}.norm.{{}}", f"{ours}.bn{{}}.{{}}"),
            (f"{block}.conv{{}}.{{}}", f"{ours}.conv{{}}.{{}}"),
        ]
        for part, blocks in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
            pairs += _conv(f"{fpn}_{part}{stage + 1}", f"{fpn}.{blocks}.{stage - 1}")
    return pairs + list(_head_pairs(layers))


def _head_pairs(layers: _Layers) -> Iterator[tuple[str, str]]:
    rpn, mask, box = "proposal_generator.rpn_head", "roi_heads.mask_head", "roi_heads.box_head"
    if not layers.several_rpn_convs:
        yield f"{rpn}.conv.{{}}", "rpn.head.conv.0.0.{}"
    for layer in range(_MOST_LAYERS):
        yield f"{rpn}.conv.conv{layer}.{{}}", f"rpn.head.conv.{layer}.0.{{}}"
        yield from _conv(f"{mask}.mask_fcn{layer + 1}", f"{mask}.{layer}")
    for layer in range(layers.box_convs):
        yield from _conv(f"{box}.conv{layer + 1}", f"{box}.{layer}")
    for layer in range(layers.box_features):
        # Two layers and no convolution are torchvision's TwoMLPHead; else they lie in a row with
        # a Flatten before them and a ReLU after each.
        two_alone = (layers.box_convs, layers.box_features) == (0, 2)
        ours = f"fc{layer + 6}" if two_alone else layers.box_convs + 1 + 2 * layer
        yield f"{box}.fc{layer + 1}.{{}}", f"{box}.{ours}.{{}}"


def _conv(theirs: str, ours: str) -> list[tuple[str, str]]:
    """A convolution with a norm, if it has one."""
    return [(f"{theirs}.norm.{{}}", f"{ours}.1.{{}}"), (f"{theirs}.{{}}", f"{ours}.0.{{}}")]


def _layers(state: Mapping[str, Tensor]) -> _Layers:
    """Of Detectron2's names."""
    box = "roi_heads.box_head"
    return _Layers(
        sum(bool(re.fullmatch(rf"{box}\.conv\d+\.weight", name)) for name in state),
        sum(bool(re.fullmatch(rf"{box}\.fc\d+\.weight", name)) for name in state),
        several_rpn_convs="proposal_generator.rpn_head.conv.conv0.weight" in state,
    )


def _own_layers(state: Mapping[str, Tensor]) -> _Layers:
    """Of torchvision's names."""
    box = [
        tensor.ndim
        for name, tensor in state.items()
        if name.startswith("roi_heads.box_head.") and name.endswith(".weight")
    ]
    return _Layers(box.count(4), box.count(2), "rpn.head.conv.1.0.weight" in state)


def _translations(state: Mapping[str, Tensor], pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The new name of every name of ``state``; its own where no pair fits."""
    rules = [(_pattern(source), target.replace("{}", r"\g<%d>")) for source, target in pairs]
    return {name: _translate(name, rules) for name in state}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", "([^.]+)"))


def _translate(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        match = pattern.fullmatch(name)
        if match:
            places = tuple(range(1, pattern.groups + 1))
            return match.expand(target % places)
    return name


def _change(state: dict[str, Tensor], name: str, change: Callable[[Tensor], Tensor]) -> None:
    if name in state:
        state[name] = change(state[name])


def _with_background(rows: Tensor, *, per_class: int, classes: int) -> Tensor:
    """Rows for the background, which say 0, and behind them every class's own."""
    if len(rows) == per_class:  # class-agnostic, or of a single class
        rows = rows.repeat(classes, *[1] * (rows.ndim - 1))
    return torch.cat([torch.zeros_like(rows[:per_class]), rows])
