"""Fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from flask.testing import FlaskClient

from api_fakes import FakeRegistry, make_client, make_registry
from maskserve.core.predictor import Image
from maskserve.runtime.image_io import encode_image


@pytest.fixture
def registry() -> FakeRegistry:
    return make_registry("balloon", "second")


@pytest.fixture
def client(registry: FakeRegistry) -> Iterator[FlaskClient]:
    with make_client(registry, max_bytes=200_000, max_pixels=1_000_000) as client:
        yield client


@pytest.fixture(scope="session")
def photo() -> Image:
    """A smooth gradient, so that JPEG hardly changes it."""
    height, width = 48, 64
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def jpeg(photo: Image) -> bytes:
    return encode_image(photo, "image/jpeg")


@pytest.fixture(scope="session")
def png(photo: Image) -> bytes:
    return encode_image(photo, "image/png")
