from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskserve.core.errors import EngineError
from maskserve.runtime.image_io import write_image
from maskserve.runtime.memory import measure_peak_memory


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_image(path, np.zeros((60, 80, 3), np.uint8))
    return path


def test_the_peak_is_above_what_was_held_before_loading(tiny_bundle: Path, photo: Path) -> None:
    memory = measure_peak_memory(tiny_bundle, [photo])
    assert memory is not None
    assert 10e6 < memory.base_bytes < memory.peak_bytes < 2e9


def test_a_failing_process_is_an_error_with_its_last_line(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(EngineError, match=r"could not be run .*: .*UnknownModelError"):
        measure_peak_memory("no-such-model", [photo])
