from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, roi_align

from maskserve.models.pyramid import STRIDES, ExactAnchors, RoiPool, RowPool

SIZES = ((32, 40), (64, 80), (128, 160), (256, 320), (512, 640))
RATIOS = ((0.5, 2.0),) * 5


def pyramid(height: int, width: int, channels: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    names = ("0", "1", "2", "3", "pool")
    return {
        name: torch.randn(1, channels, math.ceil(height / stride), math.ceil(width / stride))
        for name, stride in zip(names, STRIDES, strict=True)
    }


def test_anchors_are_not_rounded_and_go_size_by_size() -> None:
    anchors = ExactAnchors(SIZES, RATIOS).cell_anchors[0]
    widths, heights = (anchors[:, 2:] - anchors[:, :2]).T.tolist()
    root = math.sqrt(2)
    assert widths == pytest.approx([32 * root, 32 / root, 40 * root, 40 / root])
    assert heights == pytest.approx([32 / root, 32 * root, 40 / root, 40 * root])


def test_anchors_lie_at_fixed_distances_whatever_the_size() -> None:
    features = list(pyramid(96, 224).values())  # 3.5 cells of the last stride from left to right
    photo = ImageList(torch.zeros(1, 3, 96, 224), [(96, 224)])

    [anchors] = ExactAnchors(SIZES, RATIOS, offset=0.5)(photo, features)

    last = anchors[-2 * 4 * 4 :].view(2, 4, 4, 4)
    centres = (last[..., :2] + last[..., 2:]) / 2
    assert centres[0, :, 0, 0].tolist() == pytest.approx([32, 96, 160, 224])
    assert centres[:, 0, 0, 1].tolist() == pytest.approx([32, 96])


BOXES = torch.tensor([[3.0, 5, 60, 33], [0, 0, 150, 160], [10, 20, 500, 400], [7, 7, 8, 9]])


def test_old_roi_align_is_that_of_torchvision() -> None:
    features = pyramid(512, 512)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    ours = RoiPool(7, sampling_ratio=2, aligned=False)
    expected = theirs(features, [BOXES], [(512, 512)])
    torch.testing.assert_close(ours(features, [BOXES], [(512, 512)]), expected)


def test_aligned_roi_align_takes_each_box_from_its_level() -> None:
    features = pyramid(512, 512)
    pooled = RoiPool(7, sampling_ratio=0, aligned=True)(features, [BOXES], [(512, 512)])
    for row, level in enumerate([0, 1, 2, 0]):
        [expected] = roi_align(
            features[str(level)], [BOXES[row : row + 1]], 7, 1 / STRIDES[level], 0, aligned=True
        )
        torch.testing.assert_close(pooled[row], expected)


def test_boxes_of_a_batch_are_taken_from_their_own_photo() -> None:
    one = pyramid(512, 512)
    both = {name: torch.cat([level, -level]) for name, level in one.items()}
    pool = RoiPool(7, sampling_ratio=0, aligned=True)
    alone = pool(one, [BOXES], [(512, 512)])
    pooled = pool(both, [BOXES[:1], BOXES], [(512, 512)] * 2)
    torch.testing.assert_close(pooled, torch.cat([alone[:1], -alone]))


@pytest.mark.parametrize("names", [("0", "1", "2", "3"), ("1", "2", "3")], ids=["from 4", "from 8"])
@pytest.mark.parametrize("grid", [7, 14])
def test_pooling_by_rows_computes_and_learns_as_torchvision_does(
    names: tuple[str, ...], grid: int
) -> None:
    boxes = [
        torch.tensor([[3.0, 5, 60, 33], [0, 0, 500, 400], [-9, -20, 9, 30], [200, 300, 520, 530]]),
        torch.zeros(0, 4),
        torch.tensor([[7.0, 7, 8, 9], [0, 0, 384, 512], [511, 380, 512, 384], [90, 80, 330, 310]]),
    ]
    sizes = [(384, 512), (380, 500), (384, 512)]
    torch.manual_seed(0)
    features = {
        new: torch.randn(3, 5, 384 // stride, 512 // stride, requires_grad=True)
        for new, stride in zip("0123", (STRIDES[int(name)] for name in names), strict=False)
    }
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], grid, 2)(features, boxes, sizes)
    ours = RowPool(grid)(features, boxes, sizes)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    gradient = torch.randn_like(theirs)
    levels = list(features.values())
    for found, expected in zip(
        torch.autograd.grad(ours, levels, gradient),
        torch.autograd.grad(theirs, levels, gradient),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_pooling_by_rows_of_no_boxes_at_all() -> None:
    features = {"0": torch.randn(2, 3, 8, 8, requires_grad=True)}
    pooled = RowPool(7)(features, [torch.zeros(0, 4)] * 2, [(64, 64)] * 2)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert features["0"].grad is not None
    assert not features["0"].grad.any()
