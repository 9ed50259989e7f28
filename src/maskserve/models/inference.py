"""The network as it is exported and served: photo in, boxes and 28x28 masks out.

torchvision's own inference pastes every mask to full size inside the model, loops over images
in Python, and runs the mask head on everything above one fixed threshold. This module holds the
same trained layers and computes the same detections with tensor operations only, so that it
traces into one graph for photos of any size; masks stay small grids, and instances below
``min_score`` never reach the mask head. Boxes of a light model are refined by voting, if its
design has it so.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, nms

from maskserve.core.predictor import Image
from maskserve.models.mask_rcnn import LightMaskRcnn
from maskserve.models.pyramid import STRIDES, ExactAnchors, pool_pyramid
from maskserve.runtime.engine import RawDetections

__all__ = ["InferenceNetwork", "TorchEngine"]

_PAD_PX = 32
_LAST_STRIDE = 64
_MAX_LOG_RATIO = math.log(1000.0 / 16)
_MIN_BOX_PX = 1e-2  # torchvision's
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
        for name in ("mean", "std"):
            # Multiplied before they are rounded to float32, so that no digit is lost.
            values = [255 * value for value in getattr(model.transform, f"image_{name}")]
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self._voting_iou = model.voting_iou if isinstance(model, LightMaskRcnn) else 1.0
        self._has_group_norm = any(isinstance(layer, nn.GroupNorm) for layer in model.modules())

    def forward(self, image: Tensor, min_score: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the table in ``maskserve.core.manifest`` for inputs and outputs."""
        pixels = (image.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std
        if self._has_group_norm:  # torch's loses a digit where channels come last
            pixels = pixels.contiguous()
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
        for level, cell in enumerate(rpn.anchor_generator.cell_anchors):
            grid = features[level].shape[2], features[level].shape[3]
            anchors = _anchors(cell, grid, _anchor_stride(rpn.anchor_generator, features, level))
            score = logits[level].permute(0, 2, 3, 1).reshape(-1)
            delta = deltas[level].reshape(-1, 4, *grid).permute(2, 3, 0, 1).reshape(-1, 4)
            # A level with fewer anchors than top_n is filled up, so that top_n stays a constant
            # of the graph. The fillers have no area: they come last, and fall out at the end.
            score, order = torch.cat([score, score.new_full((top_n,), _NEVER)]).topk(top_n)
            anchors = torch.cat([anchors, anchors.new_zeros(top_n, 4)])[order]
            delta = torch.cat([delta, delta.new_zeros(top_n, 4)])[order]
            box = _clip(_decode(anchors, delta, rpn.box_coder.weights), size)
            boxes.append(box)
            scores.append(torch.where(_has_area(box, rpn.min_size), score, _NEVER))
            levels.append(torch.full_like(score, level))
        all_boxes, all_scores, all_levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        kept = nms(_apart(all_boxes, all_levels, size), all_scores, rpn.nms_thresh)[:post_n]
        if rpn.min_size > _MIN_BOX_PX:  # else, what is too small falls out at the end
            kept = kept[all_scores[kept] > _NEVER]
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
        voters, votes = boxes.reshape(-1, classes, 4), scores
        scores = scores.reshape(-1)
        labels = torch.arange(classes, device=scores.device).repeat(proposals.shape[0])
        index = ((scores > min_score) & _has_area(boxes, _MIN_BOX_PX)).nonzero()[:, 0]
        boxes, scores, labels = boxes[index], scores[index], labels[index]
        kept = nms(_apart(boxes, labels, size), scores, heads.nms_thresh)[: self.max_instances]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if self._voting_iou < 1:
            boxes = _vote(boxes, voters[:, labels], votes[:, labels], least_iou=self._voting_iou)
        return boxes, scores, labels

    def _segment(self, features: list[Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Mask probabilities of each box's own class: (N, 28, 28)."""
        heads = self.model.roi_heads
        grids = heads.mask_predictor(heads.mask_head(_pool(features, boxes, heads.mask_roi_pool)))
        own = (classes + 1).view(-1, 1, 1, 1).expand(-1, 1, grids.shape[2], grids.shape[3])
        chosen: Tensor = grids.gather(1, own)
        return chosen[:, 0].sigmoid()


def _vote(boxes: Tensor, voters: Tensor, votes: Tensor, *, least_iou: float) -> Tensor:
    """Means of the voters that overlap each box enough; the box is one of them.

    Only sums and products of single elements: engines compute in bfloat16 what goes into a matrix
    product, which would round coordinates to some pixels.

    Args:
        boxes: (N, 4).
        voters: (P, N, 4): other boxes, for each of ``boxes``.
        votes: (P, N): their weights.
        least_iou: With which a voter counts.
    """
    upper_left = torch.maximum(boxes[:, :2], voters[..., :2])
    lower_right = torch.minimum(boxes[:, 2:], voters[..., 2:])
    sides = (lower_right - upper_left).clamp(min=0)
    common = sides[..., 0] * sides[..., 1]
    iou = common / (_area(boxes) + _area(voters) - common)
    weights = torch.where(iou >= least_iou, votes, 0.0)
    moves = (weights[..., None] * (voters - boxes)).sum(dim=0)
    return boxes + moves / weights.sum(dim=0)[:, None]


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _first_stride(features: list[Tensor]) -> int:
    """Stride of the finest of the pyramid's levels."""
    return _LAST_STRIDE >> (len(features) - 1)


def _anchor_stride(
    generator: AnchorGenerator, features: list[Tensor], level: int
) -> tuple[int, int]:
    """Distance (vertical, horizontal) between a level's anchors in pixels."""
    if isinstance(generator, ExactAnchors):
        return STRIDES[level], STRIDES[level]
    first_stride = _first_stride(features)
    vertical, horizontal = (
        length * first_stride // cells
        for length, cells in zip(features[0].shape[2:], features[level].shape[2:], strict=True)
    )
    return vertical, horizontal


def _pad(pixels: Tensor) -> Tensor:
    """Zeros to the right and below, up to multiples of 32, as torchvision and Detectron2 do."""
    height, width = pixels.shape[2], pixels.shape[3]
    return nn.functional.pad(pixels, (0, -width % _PAD_PX, 0, -height % _PAD_PX))


def _anchors(cell: Tensor, grid: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Anchors of one level, (grid height * grid width * A, 4), row by row."""
    ys = torch.arange(grid[0], device=cell.device, dtype=cell.dtype) * stride[0]
    xs = torch.arange(grid[1], device=cell.device, dtype=cell.dtype) * stride[1]
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


def _pool(features: list[Tensor], boxes: Tensor, pooler: MultiScaleRoIAlign) -> Tensor:
    """RoIAlign of the only photo's boxes: (N, C, k, k)."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    levels = features[:-1]  # the last level only makes proposals
    return pool_pyramid(levels, rois, pooler, first_stride=_first_stride(features))


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
