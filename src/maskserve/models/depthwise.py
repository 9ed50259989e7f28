"""Depthwise convolutions with stride 2, and a quicker way to their gradients on CPUs."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["halving_depthwise", "trains_in_bfloat16"]

_HALVING = {"stride": (2, 2), "padding": (1, 1)}


def trains_in_bfloat16(input: Tensor) -> bool:  # noqa: A002 - torch's name
    """Whether autocast computes in bfloat16 on the CPU here, and a gradient is asked for."""
    return (
        input.device.type == "cpu"
        and input.requires_grad
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def halving_depthwise(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: A002
    """A depthwise 3x3 convolution with stride 2 and padding 1, with a way back of its own.

    oneDNN has no fast kernel for the gradient of such a convolution's input in bfloat16.
    MobileNetV2 has only four of them, and they were a quarter of a training step. Every second
    pixel of every second row of that gradient is a plain depthwise convolution of the output's
    gradient, with some of the weights, and so are the other three quarters: a fifth of the time.

    Args:
        input: (B, C, H, W).
        weight: (C, 1, 3, 3).
        bias: (C,).

    Returns:
        (B, C, ceil(H / 2), ceil(W / 2)), bfloat16.
    """
    rounded = [part.to(torch.bfloat16) for part in (input, weight, bias)]
    output: Tensor = _HalvingDepthwise.apply(*rounded)
    return output


class _HalvingDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return functional.conv2d(inputs, weight, bias, **_HALVING, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        _, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            weight,
            [len(weight)],
            **_HALVING,
            dilation=(1, 1),
            transposed=False,
            output_padding=(0, 0),
            groups=len(weight),
            output_mask=(False, True, True),
        )
        return _to_input(gradient, weight, like=inputs), to_weight, to_bias


def _to_input(gradient: Tensor, weight: Tensor, *, like: Tensor) -> Tensor:
    """Gradient of the input, of the shape and layout of ``like``.

    Along an axis, output ``o`` is made of inputs ``2o - 1``, ``2o`` and ``2o + 1``. So input
    ``2a`` has to do with output ``a`` by the middle weight alone, and input ``2a + 1`` with
    outputs ``a`` and ``a + 1`` by the last weight and the first.
    """
    even = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]]).to(weight)
    odd = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 0, 0]]).to(weight)
    found = torch.empty_like(like)
    for (row, down), (column, across) in product(enumerate((even, odd)), repeat=2):
        part = found[:, :, row::2, column::2]
        taps = down @ weight @ across.T
        values = functional.conv2d(gradient, taps, padding=1, groups=len(weight))
        part.copy_(values[:, :, : part.shape[2], : part.shape[3]])
    return found
