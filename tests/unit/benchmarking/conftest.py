from __future__ import annotations

import numpy as np
import pytest

from maskserve.runtime.image_io import encode_image


@pytest.fixture
def png() -> bytes:
    """A grey photo of 80 x 60."""
    return encode_image(np.full((60, 80, 3), 128, np.uint8), "image/png")
