from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image as PillowImage

WritePhoto = Callable[..., None]
WriteJson = Callable[[Path, Any], None]


@pytest.fixture
def write_photo() -> WritePhoto:
    def write(path: Path, size: tuple[int, int] = (40, 60), *, orientation: int = 1) -> None:
        """A flat grey photo of ``size`` (height, width) as stored, before its orientation."""
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = PillowImage.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        pixels = np.full((*size, 3), 128, dtype=np.uint8)
        PillowImage.fromarray(pixels).save(path, exif=exif)

    return write


@pytest.fixture
def write_json() -> WriteJson:
    def write(path: Path, document: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), encoding="utf-8")

    return write
