from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from maskserve.cli.main import main
from maskserve.runtime import model_cache
from maskserve.runtime.image_io import write_image


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Run ``maskserve`` with arguments, as a shell would."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(model_cache, "user_cache", lambda: None)  # tests leave the user's alone

    def run_main(*arguments: object) -> CompletedProcess[str]:
        command = ["maskserve", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        assert isinstance(code, int)
        return CompletedProcess(command, code, *capsys.readouterr())

    return run_main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a.png, b.jpg and a text that is no photo."""
    folder = tmp_path / "photos"
    grey = np.full((60, 80, 3), 128, np.uint8)
    write_image(folder / "a.png", grey)
    write_image(folder / "b.jpg", grey)
    (folder / "notes.txt").write_text("not a photo")
    return folder
