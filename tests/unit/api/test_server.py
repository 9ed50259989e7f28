"""The server as a process of its own, as an operator sees it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")

TESTS = Path(__file__).parents[2]
WAIT_S = 60

# The models "load" once a file exists, so that tests decide when.
PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from api_fakes import FakeRegistry, make_registry
from maskserve.api.server import serve
from maskserve.api.settings import ServerSettings

class SlowRegistry(FakeRegistry):
    def load(self):
        while not Path(sys.argv[2]).exists():
            time.sleep(0.02)
        self.ready = True

serve(
    ServerSettings(port=int(sys.argv[3]), drain_s=0.5, max_bytes=100_000),
    SlowRegistry(make_registry().predictors, ready=False),
)
"""


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    may_load: Path
    log: Path

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(WAIT_S * 50):
            if condition():
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        pytest.fail("the condition did not come true")


def start(folder: Path, *, port: int = 0) -> Server:
    may_load, log = folder / "may-load", folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(TESTS), str(may_load), str(port)],
            stderr=stderr,
            text=True,
        )
    return Server(process, "", may_load, log)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = start(tmp_path)
    try:
        server.wait_for(lambda: "\n" in server.log.read_text())
        message = json.loads(server.log.read_text().splitlines()[0])["message"]
        server.url = message.removeprefix("listening on ")
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_from_loading_to_serving_to_stopping(server: Server, jpeg: bytes) -> None:
    assert requests.get(f"{server.url}/healthz", timeout=WAIT_S).status_code == 200
    assert requests.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 503

    server.may_load.touch()
    with requests.Session() as session:
        server.wait_for(lambda: session.get(f"{server.url}/readyz", timeout=WAIT_S).ok)
        answer = session.post(f"{server.url}/v1/segment", files={"image": jpeg}, timeout=WAIT_S)
        assert answer.status_code == 200
        assert answer.json()["coverage"]["masked_px"] > 0

        # A client that still sends when it is refused must get the answer, not a reset.
        refused = session.post(f"{server.url}/v1/segment", data=bytes(8 * 2**20), timeout=WAIT_S)
        assert refused.status_code == 413

        server.process.send_signal(signal.SIGTERM)
        server.wait_for(
            lambda: session.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 503
        )
    assert server.process.wait(WAIT_S) == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "maskserve.api.server"][1:] == [
        "ready: balloon"
    ]
    paths = [line["path"] for line in lines if line["message"] == "request"]
    assert paths[0] == "/healthz"
    assert paths.count("/v1/segment") == 2


def test_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = start(tmp_path, port=port)
        assert server.process.wait(WAIT_S) != 0
    assert f"SettingsError: The server cannot listen on 127.0.0.1:{port}" in server.log.read_text()
