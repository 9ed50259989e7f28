"""Which anchors and boxes a step learns from, drawn by example and counted over all processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from maskserve.training.data import Target

__all__ = ["ExampleSampler", "LossSampling"]


class ExampleSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]
    """torchvision's sampler, but what it draws for an example depends on its number alone.

    So it does not matter which process has the example, beside which others, or whether the run
    was interrupted before.

    Args:
        standard: The sampler whose place it takes.
        seed: Tells runs and samplers apart.

    Attributes:
        examples: Numbers of the examples of the batch that comes next.
        drawn: How many were drawn for the last batch, int64.
        positive: How many of them belong to an object, int64.
    """

    def __init__(self, standard: BalancedPositiveNegativeSampler, seed: tuple[int, ...]) -> None:
        super().__init__(standard.batch_size_per_image, standard.positive_fraction)
        self._seed = seed
        self.examples: Sequence[int] = ()
        self.drawn = self.positive = torch.tensor(0)

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positives, negatives = [], []
        for example, matched in zip(self.examples, matched_idxs, strict=True):
            (seed,) = np.random.SeedSequence((*self._seed, example)).generate_state(1)
            torch.manual_seed(int(seed))
            (positive,), (negative,) = super().__call__([matched])
            positives.append(positive)
            negatives.append(negative)
        self.positive = torch.cat(positives).sum()
        self.drawn = self.positive + torch.cat(negatives).sum()
        return positives, negatives


class LossSampling:
    """The two samplers of a Mask R-CNN, and what its losses are means over.

    Args:
        model: Gets these samplers.
        seed: Of the run.
    """

    def __init__(self, model: MaskRCNN, seed: int) -> None:
        anchors = ExampleSampler(model.rpn.fg_bg_sampler, (seed, 2))
        boxes = ExampleSampler(model.roi_heads.fg_bg_sampler, (seed, 3))
        model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler = anchors, boxes
        self._anchors, self._boxes = anchors, boxes

    def begin(self, targets: Sequence[Target]) -> None:
        """Before the model sees a batch."""
        examples = [target["example"] for target in targets]
        self._anchors.examples = self._boxes.examples = examples

    def counts(self) -> dict[str, Tensor]:
        """How many anchors or boxes each loss of the last batch is the mean over, by its name.

        torchvision divides the losses of boxes by all that were drawn, background as well; only
        masks are learned from the objects' boxes alone.
        """
        return {
            "loss_objectness": self._anchors.drawn,
            "loss_rpn_box_reg": self._anchors.drawn,
            "loss_classifier": self._boxes.drawn,
            "loss_box_reg": self._boxes.drawn,
            "loss_mask": self._boxes.positive,
        }
