"""Where torchvision's training is off by fractions of a pixel, or by several."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

__all__ = ["masks_at_corners", "propose_in_float32"]

_RpnOutput = tuple[list[Tensor], list[Tensor]]


def propose_in_float32(model: MaskRCNN) -> None:
    """Keep boxes in float32 under autocast to bfloat16, from the region proposals on.

    torchvision gives proposals the type of the deltas that they are decoded from, and then gives
    annotated boxes the type of the proposals. bfloat16 has 8 bits: from 256 pixels on, heads
    would learn boxes rounded to 2 pixels, and from 512 on to 4.

    Args:
        model: Changed in place.
    """
    model.rpn.head.register_forward_hook(_to_float32)


def _to_float32(head: nn.Module, inputs: object, output: _RpnOutput) -> _RpnOutput:  # noqa: ARG001
    """Objectness and box deltas, each by level; float64 stays."""
    logits, deltas = ([_at_least_float32(level) for level in levels] for levels in output)
    return logits, deltas


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def masks_at_corners(masks: Tensor) -> Tensor:
    """Masks for torchvision's loss, which takes an index for a coordinate.

    It samples them by ``roi_align`` with ``aligned=False``: at x = 10 it wants the value between
    pixels 9 and 10, and would get that of pixel 10, whose centre lies at 10.5. Networks would
    learn masks half a pixel too far up and left.

    Args:
        masks: uint8, (N, H, W), 0 or 1.

    Returns:
        float16, (N, H, W): means of the four pixels around the upper left corner of each.
    """
    pairs = masks + torch.cat([masks[:, :1], masks[:, :-1]], dim=1)
    fours = pairs + torch.cat([pairs[:, :, :1], pairs[:, :, :-1]], dim=2)
    return fours.half() / 4
