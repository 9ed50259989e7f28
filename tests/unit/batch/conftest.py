from __future__ import annotations

import pytest

from api_fakes import EllipseEngine, make_manifest
from maskserve.runtime.predictor import EnginePredictor


@pytest.fixture
def predictor() -> EnginePredictor:
    """Finds the same two ellipses in every photo, which overlap."""
    return EnginePredictor(EllipseEngine(), make_manifest())
