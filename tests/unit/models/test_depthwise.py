from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import mobilenet_v2

from maskserve.models import depthwise
from maskserve.models.backbones import FixedBatchNorm2d, FoldedConv2d, fold_norms
from maskserve.models.depthwise import halving_depthwise


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    gradient = torch.randn(output.shape).to(output.dtype)
    return [found.float() for found in torch.autograd.grad(output, inputs, gradient)]


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (9, 5), (1, 1), (1, 2), (2, 1)])
def test_gradients_are_those_of_the_convolution(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    shapes = ((2, 5, *size), (5, 1, 3, 3), (5,))
    exact = [torch.randn(shape).bfloat16().float().requires_grad_() for shape in shapes]
    pixels, weight, bias = exact
    plain = functional.conv2d(pixels, weight, bias, stride=2, padding=1, groups=5)
    quick = halving_depthwise(pixels, weight, bias)

    torch.testing.assert_close(quick.float(), plain, rtol=2**-8, atol=1e-6)
    for found, expected in zip(gradients(quick, exact), gradients(plain, exact), strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=2**-7 * scale)


def test_memory_stays_laid_out_by_channels_last() -> None:
    shape = (1, 4, 6, 6)
    pixels = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    output = halving_depthwise(pixels, torch.randn(4, 1, 3, 3), torch.randn(4))
    [to_input] = torch.autograd.grad(output.float().sum(), [pixels])
    assert to_input.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("autocast", [True, False])
def test_the_light_backbone_goes_this_way_in_bfloat16_alone(
    monkeypatch: pytest.MonkeyPatch, *, autocast: bool
) -> None:
    calls: list[tuple[int, ...]] = []

    def counted(pixels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        calls.append(tuple(weight.shape))
        return halving_depthwise(pixels, weight, bias)

    monkeypatch.setattr("maskserve.models.backbones.halving_depthwise", counted)
    body = mobilenet_v2(norm_layer=FixedBatchNorm2d)
    fold_norms(body)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        body.features(torch.rand(1, 3, 64, 64))
        trained = len(calls)
        with torch.no_grad():
            body.features(torch.rand(1, 3, 64, 64))
    # 96 to 576 channels; no gradient needs to come to the photo itself.
    assert calls == ([(96, 1, 3, 3), (144, 1, 3, 3), (192, 1, 3, 3), (576, 1, 3, 3)] * autocast)
    assert len(calls) == trained


def test_a_backward_pass_in_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    conv = FoldedConv2d(
        torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), FixedBatchNorm2d(8)
    )
    pixels = torch.randn(2, 8, 10, 14, requires_grad=True)
    plain = gradients(conv(pixels), [pixels, conv.weight])
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise.trains_in_bfloat16(pixels)
        quick = gradients(conv(pixels), [pixels, conv.weight])
    for found, expected in zip(quick, plain, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * scale)
