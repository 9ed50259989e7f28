"""Anchors and RoIAlign on a feature pyramid, where torchvision's own would not do.

torchvision rounds anchors to whole pixels, takes the distance between them from the sizes of photo
and feature map, and knows RoIAlign as it was before its half-pixel shift was mended. Detectron2
does otherwise, and says in its configs what it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_align

__all__ = ["STRIDES", "ExactAnchors", "RoiPool", "pool_pyramid"]

STRIDES = (4, 8, 16, 32, 64)
"""Of the pyramid's levels; the last one only makes proposals."""

_CANONICAL_PX, _CANONICAL_LEVEL = 224, 4  # FPN paper, equation 1
_POOLED = ("0", "1", "2", "3")


class ExactAnchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors as they are computed, at fixed distances.

    Args:
        sizes: Square roots of the anchors' areas in pixels, for each level of :data:`STRIDES`.
        aspect_ratios: Heights over widths, for each level. A level has all pairs of the two.
        offset: Shift of all anchors, as a share of the level's stride.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[Sequence[float]],
        *,
        offset: float = 0.0,
    ) -> None:
        super().__init__(tuple(map(tuple, sizes)), tuple(map(tuple, aspect_ratios)))
        self.cell_anchors: list[Tensor] = [
            self.generate_anchors(level_sizes, ratios) + offset * stride
            for level_sizes, ratios, stride in zip(sizes, aspect_ratios, STRIDES, strict=True)
        ]

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Boxes around the origin, (A, 4), size by size."""
        halves = [
            (size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2)
            for size in scales
            for ratio in aspect_ratios
        ]
        return torch.tensor([(-w, -h, w, h) for w, h in halves], dtype=dtype, device=device)

    def grid_anchors(
        self,
        grid_sizes: list[list[int]],
        strides: list[list[Tensor]],  # noqa: ARG002 - torchvision's measure of them
    ) -> list[Tensor]:
        fixed = [[torch.tensor(stride)] * 2 for stride in STRIDES]
        anchors: list[Tensor] = super().grid_anchors(grid_sizes, fixed)
        return anchors


class RoiPool(MultiScaleRoIAlign):  # type: ignore[misc]
    """RoIAlign of each box on the pyramid level that fits its size.

    Args:
        grid: Cells on a side.
        sampling_ratio: Samples on a side of a cell; 0 for as many as there are features.
        aligned: Whether pixels' centres lie at half coordinates (Detectron2's ``ROIAlignV2``).
    """

    def __init__(self, grid: int, *, sampling_ratio: int, aligned: bool) -> None:
        super().__init__(list(_POOLED), grid, sampling_ratio)
        self.aligned = aligned

    def forward(
        self,
        x: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],  # noqa: ARG002 - strides are fixed
    ) -> Tensor:
        """See torchvision's ``MultiScaleRoIAlign``."""
        rois = [
            torch.cat([torch.full_like(some[:, :1], image), some], dim=1)
            for image, some in enumerate(boxes)
        ]
        return pool_pyramid([x[name] for name in _POOLED], torch.cat(rois), self)


def pool_pyramid(
    features: list[Tensor], rois: Tensor, pooler: MultiScaleRoIAlign, *, first_stride: int = 4
) -> Tensor:
    """RoIAlign of each box on the level that fits its size, with operations that export.

    Args:
        features: Levels of (B, C, h, w), each of twice the stride of the one before.
        rois: Index in the batch, left, top, right, bottom: (N, 5), in pixels of the photo.
        pooler: torchvision's, or a :class:`RoiPool`; gives the numbers.
        first_stride: Of the first level.

    Returns:
        (N, C, k, k).
    """
    aligned = isinstance(pooler, RoiPool) and pooler.aligned
    first_level = first_stride.bit_length() - 1
    areas = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(areas.sqrt() / _CANONICAL_PX) + 1e-6)
    level = level.clamp(first_level, first_level + len(features) - 1) - first_level
    pooled, order = [], []
    for index, feature in enumerate(features):
        members = (level == index).nonzero()[:, 0]
        pooled.append(
            roi_align(
                feature,
                rois[members],
                output_size=pooler.output_size,
                spatial_scale=1 / (first_stride * 2**index),
                sampling_ratio=pooler.sampling_ratio,
                aligned=aligned,
            )
        )
        order.append(members)
    return torch.cat(pooled)[torch.cat(order).argsort()]
