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
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_align

__all__ = ["STRIDES", "ExactAnchors", "RoiPool", "RowPool", "pool_pyramid"]

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
        return pool_pyramid([x[name] for name in _POOLED], _join(boxes), self)


class RowPool(MultiScaleRoIAlign):  # type: ignore[misc]
    """torchvision's ``MultiScaleRoIAlign`` as weighted sums of rows of a table.

    The features of a pixel, of whatever level and photo, are a row; a cell is the sum of the four
    rows around each of its samples. So all boxes are one ``embedding_bag``, whose gradients go
    to rows that lie together in memory, where those of ``roi_align`` go to one value of each
    channel after the other: see ``benchmarks/training_step.py``. For training; it does not export.

    Args:
        grid: Cells on a side.
    """

    def __init__(self, grid: int) -> None:
        super().__init__(list(_POOLED), grid, sampling_ratio=2)

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """See torchvision's; (N, C, k, k), channels last in memory, no less exact than ``boxes``.

        Levels have each twice the stride of the one before.
        """
        features = [x[name] for name in _POOLED if name in x]
        height = max(height for height, _ in image_shapes)
        first_stride = 2 ** round(math.log2(height / features[0].shape[-2]))
        rois = _join(boxes)
        channels, (cells, _), per_cell = features[0].shape[1], self.output_size, self.sampling_ratio
        rows = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in features])
        rows = rows.to(torch.promote_types(rows.dtype, rois.dtype))
        sizes = torch.tensor([level.shape[-2:] for level in features], device=rois.device)
        ends = (sizes.prod(dim=1) * len(features[0])).cumsum(0)

        level = _levels(rois, first_stride, len(features)).long()
        heights, widths = sizes[level].unbind(1)
        left, top, right, bottom = (rois[:, 1:] / (first_stride * 2**level)[:, None]).unbind(1)
        places, around = cells * per_cell, 2 * per_cell
        rows_at, row_weights = _between_pixels(top, bottom, heights, places)
        columns_at, column_weights = _between_pixels(left, right, widths, places)
        first = functional.pad(ends, (1, 0))[level] + rois[:, 0].long() * heights * widths
        starts = first[:, None, None] + rows_at * widths[:, None, None]
        down, across = (len(rois), cells, 1, around, 1), (len(rois), 1, cells, 1, around)
        indices = starts.view(down) + columns_at.view(across)
        weights = row_weights.view(down) * column_weights.view(across) / per_cell**2
        pooled = functional.embedding_bag(
            indices.view(-1, around**2),
            rows,
            per_sample_weights=weights.view(-1, around**2).to(rows),
            mode="sum",
        )
        return pooled.view(len(rois), cells, cells, channels).permute(0, 3, 1, 2)


def _join(boxes: list[Tensor]) -> Tensor:
    """Boxes of each photo as one tensor with the photo's index before them: (N, 5)."""
    rois = [
        torch.cat([torch.full_like(some[:, :1], image), some], dim=1)
        for image, some in enumerate(boxes)
    ]
    return torch.cat(rois)


def _between_pixels(low: Tensor, high: Tensor, size: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """The two pixels around each of some places that divide boxes evenly, along one axis.

    Args:
        low, high: Of the boxes, (N,), in pixels of their level.
        size: Of their level, (N,).
        places: How many.

    Returns:
        Indices of pixels and their weights, both (N, places, 2).
    """
    middles = (torch.arange(places, device=low.device) + 0.5) / places
    at = low[:, None] + (high - low).clamp(min=1)[:, None] * middles
    size = size[:, None]
    inside = (at >= -1) & (at <= size)
    at = torch.minimum(at.clamp(min=0), (size - 1).to(at))
    before = at.long()
    share = at - before
    pixels = torch.stack([before, torch.minimum(before + 1, size - 1)], dim=-1)
    return pixels, torch.stack([1 - share, share], dim=-1) * inside[..., None]


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
    level = _levels(rois, first_stride, len(features))
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


def _levels(rois: Tensor, first_stride: int, levels: int) -> Tensor:
    """Index of the level that fits each box, (N,)."""
    first_level = first_stride.bit_length() - 1
    areas = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(areas.sqrt() / _CANONICAL_PX) + 1e-6)
    return level.clamp(first_level, first_level + levels - 1) - first_level
