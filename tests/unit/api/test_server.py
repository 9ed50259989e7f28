"""The server as a process of its own, as an operator sees it."""

from __future__ import annotations

import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from api_server import WAIT_S, ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")


def test_from_loading_to_serving_to_stopping(tmp_path: Path, jpeg: bytes) -> None:
    with ServerProcess(tmp_path) as server:
        server.wait_until_listening()
        assert requests.get(f"{server.url}/healthz", timeout=WAIT_S).status_code == 200
        assert requests.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 503

        server.may_load.touch()
        with requests.Session() as session:
            server.wait_for(lambda: session.get(f"{server.url}/readyz", timeout=WAIT_S).ok)
            answer = session.post(f"{server.url}/v1/segment", files={"image": jpeg}, timeout=WAIT_S)
            assert answer.status_code == 200
            assert answer.json()["coverage"]["masked_px"] > 0

            # A client that still sends when it is refused must get the answer, not a reset.
            refused = session.post(
                f"{server.url}/v1/segment", data=bytes(8 * 2**20), timeout=WAIT_S
            )
            assert refused.status_code == 413

            check_graceful_stop(server, session, jpeg)
        messages = [line["message"] for line in server.lines("maskserve.api.loading")]
        assert messages == ["ready: balloon"]
        paths = [line["path"] for line in server.lines("maskserve.access")]
        assert paths[0] == "/healthz"
        assert paths.count("/v1/segment") == 4


def check_graceful_stop(server: ServerProcess, session: requests.Session, jpeg: bytes) -> None:
    """A running photo is finished, although others keep connections open and say nothing more."""
    with (
        ThreadPoolExecutor(1) as pool,
        server.connect() as silent,
        server.connect() as slow,
    ):
        slow.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        server.hold.touch()
        running = pool.submit(
            requests.post, f"{server.url}/v1/segment", files={"image": jpeg}, timeout=WAIT_S
        )
        server.running.unlink(missing_ok=True)
        server.wait_for(server.running.exists)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(
            lambda: session.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 503
        )
        assert silent.recv(1) == b""
        assert not running.done()
        server.hold.unlink()
        assert running.result(WAIT_S).status_code == 200
        assert server.process.wait(WAIT_S) == 0


def test_several_workers_reload_and_stop(tmp_path: Path, jpeg: bytes) -> None:
    workers = 2
    with ServerProcess(tmp_path, workers=workers, drain_s=3) as server:
        server.may_load.touch()
        server.wait_until_listening()
        server.wait_for_lines("ready: balloon", workers)
        for answers in (workers, 2 * workers):
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_lines("no bundle has changed", answers)
        with requests.Session() as session:
            check_graceful_stop(server, session, jpeg)


def test_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with ServerProcess(tmp_path, port=port) as server:
            assert server.process.wait(WAIT_S) != 0
    assert f"SettingsError: The server cannot listen on 127.0.0.1:{port}" in server.log
