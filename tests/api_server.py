"""The server as a process of its own, around the network of ``api_fakes``, for tests of the API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

TESTS = Path(__file__).parent
WAIT_S = 60

# The models "load" once a file exists, and a photo is worked on while another one exists, so that
# tests decide when.
_PROGRAM = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from api_fakes import FakeRegistry, make_registry
from maskserve.api.server import serve
from maskserve.api.settings import ServerSettings

folder = Path(sys.argv[2])

def hold():
    (folder / "running").touch()
    while (folder / "hold").exists():
        time.sleep(0.01)

class SlowRegistry(FakeRegistry):
    def load(self):
        while not (folder / "may-load").exists():
            time.sleep(0.02)
        self.ready = True

serve(
    ServerSettings(**json.loads(sys.argv[3])),
    SlowRegistry(make_registry(before=hold).predictors, ready=False),
)
"""


class ServerProcess:
    """A server that was started in a folder of its own, and is killed at the end of the block.

    Attributes:
        url: Empty until :meth:`wait_until_listening`.
        may_load: While this file is missing, the models are loading.
        hold: While this file is there, the network is busy with its photo.
        running: Is made when the network begins with a photo.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.may_load, self.hold, self.running = (
            folder / name for name in ("may-load", "hold", "running")
        )
        self._log = folder / "log"
        self.url = ""
        values = {"port": 0, "drain_s": 0.5, "max_bytes": 100_000, **settings}
        with self._log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(TESTS), str(folder), json.dumps(values)],
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.unlink(missing_ok=True)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def lines(self, logger: str | None = None) -> list[dict[str, Any]]:
        """What was logged, by one logger or by all of them."""
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in lines if logger in (None, line["logger"])]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(WAIT_S * 50):
            if condition():
                return
            assert self.process.poll() is None, self.log
            time.sleep(0.02)
        pytest.fail(f"the condition did not come true\n{self.log}")

    def wait_for_lines(self, text: str, count: int) -> None:
        """Wait until so many lines of the log hold a text."""
        self.wait_for(lambda: self.log.count(text) >= count)

    def wait_until_listening(self) -> None:
        self.wait_for(lambda: "listening on" in self.log and self.log.endswith("\n"))
        message = self.lines("maskserve.api.server")[-1]["message"]
        self.url = message.removeprefix("listening on ")

    def wait_until_ready(self) -> None:
        self.may_load.touch()
        self.wait_until_listening()
        self.wait_for(lambda: requests.get(f"{self.url}/readyz", timeout=WAIT_S).ok)

    def connect(self) -> socket.socket:
        """A plain connection, for requests that no library would send."""
        port = int(self.url.rpartition(":")[2])
        return socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)

    def stop(self) -> int:
        """Ask it to stop; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)
