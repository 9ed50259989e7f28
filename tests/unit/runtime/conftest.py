from __future__ import annotations

import numpy as np
import pytest

from maskserve.core import Image, Instances, MaskCrop


@pytest.fixture
def photo() -> Image:
    """Noise, 60 x 80."""
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def two_squares() -> Instances:
    """In a photo of 60 x 80: rows and columns 10 to 29, and 20 to 39 over it."""
    square = np.ones((20, 20), np.bool_)
    return Instances(
        (60, 80),
        ("balloon", "kite"),
        np.array([[10, 10, 30, 30], [20, 20, 40, 40]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([0, 1], np.int64),
        (MaskCrop(10, 10, square), MaskCrop(20, 20, square)),
    )
