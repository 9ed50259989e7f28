"""The actors of a Ray cluster make the rows of one machine, also when they are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from batch_runs import command, environment, make_photos, rows_of

pytest.importorskip("ray", reason="the extra “ray” is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads titles of processes")

PHOTOS = 200
PART_PHOTOS = 5
WAIT_S = 300


class Driver:
    """``maskserve predict --on ray`` with a cluster of its own, and all processes of that."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(arguments, env=env)
        self._seen: dict[int, psutil.Process] = {}

    def actors(self) -> list[psutil.Process]:
        """The actors that look at photos now."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            self._seen |= {child.pid: child for child in children}
            return [child for child in children if "MapWorker" in " ".join(_title(child))]
        return []

    def end(self) -> None:
        """Kill what is left of it."""
        self.actors()
        self.process.kill()
        self.process.wait()
        for process in self._seen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _title(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return list(process.cmdline())
    return []


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.end()


def test_killed_actors_and_a_killed_driver_change_no_row(
    tmp_path: Path, tiny_bundle: Path, drivers: list[Driver], request: pytest.FixtureRequest
) -> None:
    generator = random.Random(request.config.getoption("--seed"))
    photos = make_photos(tmp_path / "photos", PHOTOS)
    options = ("--model", tiny_bundle, "--part-photos", PART_PHOTOS, "--out")
    env = environment(tmp_path / "cache")
    here, on_ray = tmp_path / "here", tmp_path / "on-ray"
    alone = subprocess.run(command(photos, *options, here), env=env, check=False, timeout=WAIT_S)
    assert alone.returncode == 3

    def start() -> Driver:
        arguments = command(photos, *options, on_ray, "--actors", 2, on="ray")
        drivers.append(Driver(arguments, env))
        return drivers[-1]

    def wait_for_parts(driver: Driver, least: int) -> None:
        until = time.monotonic() + WAIT_S
        while driver.process.poll() is None and len(list(on_ray.glob("photos/part-*"))) < least:
            assert time.monotonic() < until
            driver.actors()
            time.sleep(0.005)

    parts = (PHOTOS + 5) // PART_PHOTOS
    first = start()
    wait_for_parts(first, generator.randint(1, parts // 3))
    driver_end = generator.randint(parts // 2, parts)
    killed = first.actors()
    assert len(killed) == 2
    for actor in killed:
        actor.kill()
    wait_for_parts(first, driver_end)
    first.end()
    second = start()
    assert second.process.wait(WAIT_S) == 3
    assert rows_of(on_ray) == rows_of(here)
