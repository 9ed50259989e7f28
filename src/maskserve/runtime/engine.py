"""The step from a resized photo to raw detections, by OpenVINO or by anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskserve.core.boxes import Boxes
from maskserve.core.predictor import Image

__all__ = ["Engine", "RawDetections"]


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """What the graph gives, best first; see ``core.manifest`` for the contract.

    Attributes:
        boxes_xyxy: float32, shape (N, 4), in pixels of the resized photo.
        scores: float32, shape (N,).
        class_indices: int64, shape (N,), 0-based.
        mask_grids: float32, shape (N, k, k), probabilities in 0..1.
    """

    boxes_xyxy: Boxes
    scores: npt.NDArray[np.float32]
    class_indices: npt.NDArray[np.int64]
    mask_grids: npt.NDArray[np.float32]


class Engine(Protocol):
    """Runs a graph. Safe to call from several threads."""

    def infer(self, image: Image, *, min_score: float) -> RawDetections:
        """Find instances in a resized photo.

        Args:
            image: uint8, shape (h, w, 3), channels in the manifest's order.
            min_score: Weaker detections are dropped before the mask head runs.
        """
        ...
