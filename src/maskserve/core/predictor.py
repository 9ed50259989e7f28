"""What evaluation, the API and the command line ask of a model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskserve.core.manifest import Manifest
from maskserve.core.types import Instances

__all__ = ["Image", "Predictor"]

Image = npt.NDArray[np.uint8]
"""An upright photo: uint8, shape (H, W, 3), RGB."""


class Predictor(Protocol):
    """Finds instances in photos. Safe to call from several threads."""

    @property
    def manifest(self) -> Manifest: ...

    def predict(self, image: Image, *, min_score: float | None = None) -> Instances:
        """Find instances.

        Args:
            image: uint8, shape (H, W, 3), RGB, upright, of any size and aspect ratio.
            min_score: Confidence threshold in 0..1; the model's calibrated one by default.

        Returns:
            Instances in pixels of ``image``, best first; none is a normal answer.

        Raises:
            EngineError: The inference engine failed.
        """
        ...
