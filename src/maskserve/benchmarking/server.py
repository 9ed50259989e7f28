"""A server in a process of its own, as an operator starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from maskserve.core.errors import EngineError
from maskserve.runtime.memory import ProcessMemory, process_memory

__all__ = ["ServerProcess"]

_T = TypeVar("_T")
_WAIT_S = 120
_POLL_S = 0.005


class ServerProcess:
    """``maskserve serve`` on a free port; stopped at the end of its ``with`` block.

    Settings in ``MASKSERVE_*`` count, as they do for any server.

    Args:
        models: Shipped models or bundles.
        environment: Variables to set beside those of this process.

    Attributes:
        listening_s: Seconds from the start until it listened.
        ready_s: Seconds from the start until every model was ready.

    Raises:
        EngineError: It did not start.
    """

    def __init__(
        self, models: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
    ) -> None:
        # -P: files in the folder where the user stands must not shadow modules.
        command = [sys.executable, "-P", "-m", "maskserve", "serve", "--host", "127.0.0.1"]
        command += ["--port", "0", *(part for model in models for part in ("--model", str(model)))]
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._folder.name) / "log"
        self._start = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "MASKSERVE_DRAIN_S": "0", **(environment or {})},
            )
        try:
            self._address = self._wait(self._find_address)
            self.listening_s = self.age_s
            self._wait(self._answers_ready)
            self.ready_s = self.age_s
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def age_s(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self._start

    @property
    def memory(self) -> ProcessMemory | None:
        """Of a process that holds the models; None where Linux is not."""
        return process_memory(self.worker_pids[0])

    @property
    def pid(self) -> int:
        """Of the process that an operator stops."""
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        """Of the processes that hold the models, one by default."""
        # gunicorn answers in child processes, werkzeug in the process itself.
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        found = children.read_text().split() if children.is_file() else []
        return [int(pid) for pid in found] or [self.pid]

    @property
    def url(self) -> str:
        """Where it answers, such as ``http://127.0.0.1:8080``."""
        host, port = self._address
        return f"http://{host}:{port}"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(errors="replace")

    def connect(self) -> HTTPConnection:
        """A connection to the server, to be closed by the caller."""
        host, port = self._address
        return HTTPConnection(host, port, timeout=_WAIT_S)

    def wait(self, timeout_s: float) -> int:
        """Wait until the process has ended by itself; returns its exit code."""
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """End the process, kindly at first."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _wait(self, look: Callable[[], _T | None]) -> _T:
        """Look until there is something, for as long as the process lives."""
        while self.age_s < _WAIT_S:
            found = look()
            if found is not None:
                return found
            if self._process.poll() is not None:
                lines = self.log.strip().splitlines()
                raise EngineError(f"The server did not start: {' '.join(lines[-2:])}")
            time.sleep(_POLL_S)
        raise EngineError(f"The server was not ready after {_WAIT_S} s.")

    def _find_address(self) -> tuple[str, int] | None:
        """Where the server listens, as its log says."""
        for line in self.log.splitlines():
            if line.startswith("{") and line.endswith("}"):
                _, found, url = str(json.loads(line).get("message")).partition("listening on ")
                parts = urlsplit(url)
                if found and parts.hostname and parts.port:
                    return parts.hostname, parts.port
        return None

    def _answers_ready(self) -> bool | None:
        connection = self.connect()
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if b"Not every model" in body:
            raise EngineError(f"The server did not start: {json.loads(body)['detail']}")
        return True if answer.status == 200 else None
