from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def references() -> Path:
    """Small models that Detectron2 trained, with what it answers."""
    folder = REPOSITORY.parent / "shared" / "detectron2"
    if not folder.is_dir():
        pytest.skip("there is no folder ../shared/detectron2 beside the checkout")
    return folder
