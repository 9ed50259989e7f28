from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_imports_keep_to_the_layers() -> None:
    """The contracts stand in pyproject.toml; ``lint-imports`` explains what broke one.

    A process of its own, since it sets logging up anew and silences the loggers there are.
    """
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [command, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
