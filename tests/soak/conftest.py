"""Tests that try to break the server: short with all other tests, long with ``make soak``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import pytest

from conftest import write_tiny_bundle
from image_mutations import sound_images
from maskserve.benchmarking.machine import describe_machine
from maskserve.benchmarking.server import ServerProcess
from request_mutations import MODEL

_T = TypeVar("_T")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak")
    group.addoption("--long", action="store_true", help="run the long versions")
    group.addoption("--out", type=Path, help="folder for results.json and inputs that failed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("long", default=False):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@dataclass
class Soak:
    """How to run, and what came out.

    Attributes:
        out: Folder for results and for inputs that made a test fail.
        rows: A result for each test.
    """

    long: bool
    seed: int
    out: Path
    rows: list[dict[str, object]] = field(default_factory=list)

    def choose(self, *, short: _T, long: _T) -> _T:
        return long if self.long else short

    def save(self, name: str, data: bytes) -> Path:
        """Keep an input that made a test fail."""
        folder = self.out / "failures"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(data)
        return path


_SOAK = pytest.StashKey[Soak]()


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Soak:
    if sys.platform != "linux":
        pytest.skip("these tests watch processes through /proc")
    value = Soak(
        # The options are known where pytest was started for this folder.
        long=pytestconfig.getoption("long", default=False),
        seed=pytestconfig.getoption("seed", default=1),
        out=pytestconfig.getoption("out", default=None) or tmp_path_factory.mktemp("soak"),
    )
    value.out.mkdir(parents=True, exist_ok=True)
    pytestconfig.stash[_SOAK] = value
    return value


@pytest.fixture
def report(soak: Soak, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Report the figures of a test, before it asserts anything about them."""
    start = time.perf_counter()
    name = request.node.name.removeprefix("test_").replace("_", " ")

    def add(**figures: object) -> None:
        seconds = round(time.perf_counter() - start, 1)
        soak.rows.append({"test": name, "seconds": seconds, **figures})

    return add


@pytest.fixture(scope="session")
def tiny_server(soak: Soak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose network takes no time, so that everything around it is what is tested."""
    folder = tmp_path_factory.mktemp("tiny-server")
    bundle = write_tiny_bundle(folder / "tiny", name=MODEL)
    (folder / "photo.png").write_bytes(sound_images()["png-rgb"])
    environment = {
        "MASKSERVE_JOBS_DIR": str(folder / "jobs"),
        "MASKSERVE_LABEL_STUDIO_LOCAL_FILES": str(folder),
    }
    with ServerProcess([bundle], environment=environment) as server:
        yield server


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    soak = config.stash.get(_SOAK, None)
    if soak is None or not soak.rows:
        return
    terminalreporter.section(f"soak, {'long' if soak.long else 'short'}, seed {soak.seed}")
    for row in soak.rows:
        figures = [f"{key.replace('_', ' ')}: {value}" for key, value in row.items()]
        terminalreporter.write_line("\n    ".join([str(row["test"]), *figures[1:]]))
    results = {
        "machine": describe_machine(),
        "version": version("maskserve"),
        "long": soak.long,
        "seed": soak.seed,
        "results": soak.rows,
    }
    path = soak.out / "results.json"
    path.write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
    terminalreporter.write_line(f"also in {path}")
