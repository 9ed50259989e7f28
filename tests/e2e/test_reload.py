"""A served model is replaced under load, and no request is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from maskserve.runtime.bundle import shipped_bundles

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")

WAIT_S = 120
CLIENTS, PHOTOS = 2, 8
SHIPPED = shipped_bundles()["balloon-fast"]
EXAMPLE = Path(__file__).parents[2] / "src" / "maskserve" / "api" / "static" / "example.jpg"


def put(bundle: Path, version: str, *, broken: bool = False) -> None:
    """Replace a bundle at once, as an operator should: by renaming."""
    new = bundle.with_suffix(".new")
    shutil.copytree(SHIPPED, new)
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    if broken:
        (new / "model.onnx").write_bytes(b"half a model")
    if bundle.exists():
        bundle.rename(bundle.with_suffix(f".before-{version}"))
    new.rename(bundle)


@contextmanager
def serving(bundle: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "maskserve", "serve", "--model", str(bundle), "--port", "0"],
            stderr=stderr,
            env={**os.environ, "MASKSERVE_DRAIN_S": "0"},
        )
    try:
        wait_for(log, "ready: balloon-fast", process=process)
        listening = json.loads(log.read_text().splitlines()[0])["message"]
        yield process, listening.removeprefix("listening on ")
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0


def wait_for(log: Path, text: str, *, times: int = 1, process: subprocess.Popen[bytes]) -> None:
    for _ in range(WAIT_S * 20):
        if log.read_text().count(text) >= times:
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    pytest.fail(f"“{text}” was not logged:\n{log.read_text()}")


def test_no_request_is_lost_while_bundles_come_and_go(tmp_path: Path) -> None:
    bundle, log = tmp_path / "bundle", tmp_path / "log"
    put(bundle, "v0")
    answers: Counter[tuple[int, str]] = Counter()

    def ask(url: str) -> None:
        with requests.Session() as session:
            for _ in range(PHOTOS):
                answer = session.post(url, data=EXAMPLE.read_bytes(), timeout=WAIT_S)
                body = answer.json()
                answers[
                    answer.status_code, body.get("model", body).get("version", answer.text)
                ] += 1

    with serving(bundle, log) as (process, url):
        segment = f"{url}/v1/segment?masks=none"
        clients = [threading.Thread(target=ask, args=(segment,)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for version, broken in (("v1", False), ("v2", True), ("v3", False)):
            put(bundle, version, broken=broken)
            process.send_signal(signal.SIGHUP)
            told = f"version {'v1 stays' if broken else version + ' now'}"
            wait_for(log, told, process=process)
        for client in clients:
            client.join(WAIT_S)
        last = requests.post(segment, data=EXAMPLE.read_bytes(), timeout=WAIT_S).json()
        assert requests.get(f"{url}/readyz", timeout=WAIT_S).status_code == 200

    assert sum(answers.values()) == CLIENTS * PHOTOS
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} <= {"v0", "v1", "v3"}
    assert last["model"]["version"] == "v3"
    assert len(last["instances"]) > 0
    assert "sha256 differs" in log.read_text()
