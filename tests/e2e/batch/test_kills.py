"""A run that is killed at random moments, on this machine, gives the rows of one that was not."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from batch_runs import command, environment, make_photos, rows_of

PHOTOS = 60
KILLS = 6


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    value: int = request.config.getoption("--seed")
    return value


def test_kills_lose_and_double_nothing(tmp_path: Path, tiny_bundle: Path, seed: int) -> None:
    photos = make_photos(tmp_path / "photos", PHOTOS, seed=seed)
    arguments = (photos, "--model", tiny_bundle, "--pictures", "--part-photos", 3, "--out")
    env = environment(tmp_path / "cache")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = subprocess.run(command(*arguments, whole), env=env, check=False, timeout=120)
    assert undisturbed.returncode == 3
    files = sum(path.is_file() for path in whole.rglob("*"))

    generator = random.Random(seed)
    for kill in range(KILLS):
        process = subprocess.Popen(command(*arguments, killed), env=env)
        # Any moment of the run, by how far it is; the first ones while photos are listed.
        wanted = generator.randint(0, files * (kill + 1) // KILLS)
        while process.poll() is None and sum(1 for _ in killed.rglob("*.*")) < wanted:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.01))
        process.kill()
        process.wait()
    assert subprocess.run(command(*arguments, killed), env=env, check=False).returncode == 3
    assert rows_of(killed) == rows_of(whole)
    found = {path.relative_to(killed) for path in killed.rglob("*") if path.name[0] != "."}
    assert found == {path.relative_to(whole) for path in whole.rglob("*")}
