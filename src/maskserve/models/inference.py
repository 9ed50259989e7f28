"""The network as it is exported and served: photo in, boxes and 28x28 masks out.

torchvision's own inference pastes every mask to full size inside the model, loops over images
in Python, and runs the mask head on everything above one fixed threshold. This module holds the
same trained layers and computes the same detections with tensor operations only, so that it
traces into one graph for photos of any size; masks stay small grids, and instances below
``min_score`` never reach the mask head.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import nms, roi_align

from maskserve.core.predictor import Image
from maskserve.runtime.engine import RawDetections

__all__ = ["InferenceNetwork", "TorchEngine"]

_PAD_PX = 32
_CANONICAL_PX, _CANONICAL_LEVEL = 224, 4  # FPN paper, equation 1
_LAST_POOLED_LEVEL = 5  # stride 32
_MAX_LOG_RATIO = math.log(1000.0 / 16)
_MIN_PROPOSAL_PX, _MIN_BOX_PX = 1e-3, 1e-2  # torchvision's
_NEVER = -1e4
"""Logit of a proposal that must come after all others."""


class InferenceNetwork(nn.Module):
    """Wraps a trained torchvision Mask R-CNN; shares its layers.

    Args:
        model: A model of :func:`maskserve.models.build_model`. Set to evaluation mode.
        max_instances: At most so many detections are returned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: MaskRCNN, *, max_instances: int = 100) -> None:
        super().__init__()
        self.model = model.eval()
        self.max_instances = max_instances
        transform = model.transform
        self.register_buffer("mean", 255 * torch.tensor(transform.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(transform.image_std).view(1, 3, 1, 1))

    def forward(self, image: Tensor, min_score: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the table in ``maskserve.core.manifest`` for inputs and outputs."""
        pixels = (image.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std
        size = (pixels.shape[2], pixels.shape[3])
        features = list(self.model.backbone(_pad(pixels)).values())
        proposals = self._propose(features, size)
        boxes, scores, classes = self._detect(features, proposals, size, min_score)
        return boxes, scores, classes, self._segment(features, boxes, classes)

    def _propose(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Region proposals, best first: (P, 4)."""
        rpn = self.model.rpn
        # Attributes of torchvision's RPN; its methods of the same name depend on the mode.
        top_n, post_n = rpn._pre_nms_top_n["testing"], rpn._post_nms_top_n["testing"]
        boxes, scores, levels = [], [], []
        logits, deltas = rpn.head(features)
        first_stride = _first_stride(features)
        padded_h, padded_w = (length * first_stride for length in features[0].shape[2:])
        for level, cell in enumerate(rpn.anchor_generator.cell_anchors):
            grid_h, grid_w = features[level].shape[2], features[level].shape[3]
            anchors = _anchors(cell, grid_h, grid_w, padded_h // grid_h, padded_w // grid_w)
            score = logits[level].permute(0, 2, 3, 1).reshape(-1)
            delta = deltas[level].reshape(-1, 4, grid_h, grid_w).permute(2, 3, 0, 1).reshape(-1, 4)
            # A level with fewer anchors than top_n is filled up, so that top_n stays a constant
            # of the graph. The fillers have no area: they come last, and fall out at the end.
            score, order = torch.cat([score, score.new_full((top_n,), _NEVER)]).topk(top_n)
            anchors = torch.cat([anchors, anchors.new_zeros(top_n, 4)])[order]
            delta = torch.cat([delta, delta.new_zeros(top_n, 4)])[order]
            box = _clip(_decode(anchors, delta, (1.0, 1.0, 1.0, 1.0)), size)
            boxes.append(box)
            scores.append(torch.where(_has_area(box, _MIN_PROPOSAL_PX), score, _NEVER))
            levels.append(torch.full_like(score, level))
        all_boxes, all_scores, all_levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        kept = nms(_apart(all_boxes, all_levels, size), all_scores, rpn.nms_thresh)[:post_n]
        return all_boxes[kept]

    def _detect(
        self, features: list[Tensor], proposals: Tensor, size: tuple[int, int], min_score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), class indices (N,), best first."""
        heads = self.model.roi_heads
        pooled = _pool(features, proposals, heads.box_roi_pool)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        scores = logits.softmax(-1)[:, 1:]
        classes = scores.shape[1]
        deltas = deltas.reshape(-1, classes + 1, 4)[:, 1:]
        boxes = _decode(proposals[:, None], deltas, heads.box_coder.weights)
        boxes = _clip(boxes.reshape(-1, 4), size)
        scores = scores.reshape(-1)
        labels = torch.arange(classes, device=scores.device).repeat(proposals.shape[0])
        index = ((scores > min_score) & _has_area(boxes, _MIN_BOX_PX)).nonzero()[:, 0]
        boxes, scores, labels = boxes[index], scores[index], labels[index]
        kept = nms(_apart(boxes, labels, size), scores, heads.nms_thresh)[: self.max_instances]
        return boxes[kept], scores[kept], labels[kept]

    def _segment(self, features: list[Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Mask probabilities of each box's own class: (N, 28, 28)."""
        heads = self.model.roi_heads
        grids = heads.mask_predictor(heads.mask_head(_pool(features, boxes, heads.mask_roi_pool)))
        own = (classes + 1).view(-1, 1, 1, 1).expand(-1, 1, grids.shape[2], grids.shape[3])
        chosen: Tensor = grids.gather(1, own)
        return chosen[:, 0].sigmoid()


def _first_stride(features: list[Tensor]) -> int:
    """Stride of the finest of the pyramid's levels, of which the last is of stride 64."""
    return 1 << (_LAST_POOLED_LEVEL + 2 - len(features))


def _pad(pixels: Tensor) -> Tensor:
    """Zeros to the right and below, up to multiples of 32, as torchvision and Detectron2 do."""
    height, width = pixels.shape[2], pixels.shape[3]
    return nn.functional.pad(pixels, (0, -width % _PAD_PX, 0, -height % _PAD_PX))


def _anchors(cell: Tensor, grid_h: int, grid_w: int, stride_h: int, stride_w: int) -> Tensor:
    """Anchors of one level, (grid_h * grid_w * A, 4), row by row, in torchvision's order."""
    ys = torch.arange(grid_h, device=cell.device, dtype=cell.dtype) * stride_h
    xs = torch.arange(grid_w, device=cell.device, dtype=cell.dtype) * stride_w
    shift_y, shift_x = torch.meshgrid(ys, xs, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)


def _decode(boxes: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Apply box deltas; ``boxes`` broadcasts against ``deltas``. See torchvision's BoxCoder."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + sides / 2
    scale = deltas.new_tensor(weights)
    moves = deltas / scale
    new_centres = centres + moves[..., :2] * sides
    halves = sides * moves[..., 2:].clamp(max=_MAX_LOG_RATIO).exp() / 2
    return torch.cat([new_centres - halves, new_centres + halves], dim=-1)


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    x, y = boxes[:, 0::2].clamp(0, size[1]), boxes[:, 1::2].clamp(0, size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=-1)


def _has_area(boxes: Tensor, least_px: float) -> Tensor:
    """Whether both sides of a box have at least this length: bool, (N,)."""
    return ((boxes[:, 2:] - boxes[:, :2]) >= least_px).all(dim=1)


def _apart(boxes: Tensor, groups: Tensor, size: tuple[int, int]) -> Tensor:
    """Move every group to a place of its own, so that one NMS treats all of them at once."""
    return boxes + (groups.to(boxes.dtype) * (size[0] + size[1]))[:, None]


def _pool(features: list[Tensor], boxes: Tensor, pooler: nn.Module) -> Tensor:
    """RoIAlign of each box on the pyramid level that fits its size: (N, C, k, k)."""
    first_stride = _first_stride(features)
    first_level = first_stride.bit_length() - 1
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(areas.sqrt() / _CANONICAL_PX) + 1e-6)
    level = level.clamp(first_level, _LAST_POOLED_LEVEL) - first_level
    pooled, order = [], []
    for index, feature in enumerate(features[:-1]):  # the last level only makes proposals
        members = (level == index).nonzero()[:, 0]
        rois = torch.cat([boxes.new_zeros(members.shape[0], 1), boxes[members]], dim=1)
        pooled.append(
            roi_align(
                feature,
                rois,
                output_size=pooler.output_size,
                spatial_scale=1 / (first_stride * 2**index),
                sampling_ratio=pooler.sampling_ratio,
                aligned=False,
            )
        )
        order.append(members)
    return torch.cat(pooled)[torch.cat(order).argsort()]


class TorchEngine:
    """An :class:`maskserve.runtime.Engine` that runs the torch network itself.

    Args:
        network: Used as it is; later changes of its weights show.
    """

    def __init__(self, network: InferenceNetwork) -> None:
        self._network = network

    @torch.inference_mode()
    def infer(self, image: Image, *, min_score: float) -> RawDetections:
        """See :meth:`maskserve.runtime.Engine.infer`."""
        device = self._network.mean.device
        outputs = self._network(
            torch.tensor(image, device=device)[None],
            torch.tensor([min_score], dtype=torch.float32, device=device),
        )
        boxes, scores, classes, grids = (output.cpu().numpy() for output in outputs)
        return RawDetections(
            boxes.astype(np.float32), scores.astype(np.float32), classes, grids.astype(np.float32)
        )
