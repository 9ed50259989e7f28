"""Jobs of a real server, which is killed, stopped and run out of disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from maskserve.runtime.image_io import encode_image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")

TESTS = Path(__file__).parents[1]
WAIT_S = 60

# A network that takes its time, so that there is some to kill it in.
PROGRAM = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from api_fakes import make_registry
from maskserve.api.server import serve
from maskserve.api.settings import ServerSettings
settings = json.loads(sys.argv[2])
photo_s = settings.pop("photo_s")
serve(ServerSettings(**settings), make_registry(before=lambda: time.sleep(photo_s)))
"""


class Server:
    """A server process with a folder of jobs, which can be started again and again."""

    def __init__(self, folder: Path, *, jobs: Path | None = None, **settings: Any) -> None:
        self.jobs = jobs or folder / "jobs"
        self._settings = {
            "photo_s": 0.05,
            "port": 0,
            "drain_s": 0.2,
            "jobs_dir": str(self.jobs),
        } | settings
        self._log = folder / "log"
        self.session = requests.Session()
        self.start()

    def start(self) -> None:
        with self._log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(TESTS), json.dumps(self._settings)],
                stderr=stderr,
            )
        self.wait_for(lambda: "\n" in self._log.read_text())
        message = json.loads(self._log.read_text().splitlines()[0])["message"]
        self.url = message.removeprefix("listening on ")
        self.wait_for(lambda: self._answers("/readyz"))

    def end(self) -> None:
        for pid in (self.process.pid, *self.worker_pids()):
            kill(pid, signal.SIGKILL)
        self.process.wait(WAIT_S)

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if not children.exists():
            pytest.skip("the system does not tell what processes a process has started")
        return [int(pid) for pid in children.read_text().split()]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(WAIT_S * 50):
            if condition():
                return
            time.sleep(0.02)
        pytest.fail(f"the condition did not come true; the log: {self._log.read_text()[-3000:]}")

    def _answers(self, path: str) -> bool:
        try:
            return self.session.get(self.url + path, timeout=WAIT_S).ok
        except requests.ConnectionError:
            return False

    def post(self, body: Any, query: str = "", **more: Any) -> requests.Response:
        return self.session.post(
            f"{self.url}/v1/jobs{query}",
            data=body,
            headers={"Content-Type": "application/zip"},
            timeout=WAIT_S,
            **more,
        )

    def accept(self, body: Any, query: str = "") -> str:
        answer = self.post(body, query)
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def get(self, path: str) -> requests.Response:
        """Also while the server is started again by its master."""
        for _ in range(WAIT_S * 5):
            try:
                return self.session.get(self.url + path, timeout=WAIT_S)
            except requests.ConnectionError:
                time.sleep(0.2)
        pytest.fail("nobody answers")

    def state(self, job: str) -> str:
        return str(self.get(job).json()["state"])

    def photos_done(self, job: str) -> int:
        photos = self.get(job).json()["photos"]
        return int(photos["done"]) + int(photos["failed"])

    def lines(self, job: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.get(f"{job}/results").text.splitlines()]


def kill(pid: int, sig: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, sig)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start_one(**settings: Any) -> Server:
        servers.append(Server(tmp_path, **settings))
        return servers[-1]

    yield start_one
    for server in servers:
        server.end()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return encode_image(np.full((48, 64, 3), 128, dtype=np.uint8), "image/jpeg")


def make_zip(photo: bytes, *, photos: int) -> bytes:
    """Photos of which each tenth is broken."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i in range(photos):
            archive.writestr(f"{i}.jpg", b"broken" if i % 10 == 9 else photo)
    return stream.getvalue()


def check_complete(server: Server, job: str, *, photos: int) -> None:
    """Every photo has one line, in order, and every sound one a picture."""
    server.wait_for(lambda: server.state(job) == "done")
    lines = server.lines(job)
    assert [line["index"] for line in lines] == list(range(photos))
    assert [line["file"] for line in lines] == [f"{i}.jpg" for i in range(photos)]
    assert [i for i, line in enumerate(lines) if "error" in line] == list(range(9, photos, 10))
    with zipfile.ZipFile(BytesIO(server.get(f"{job}/pictures").content)) as pictures:
        assert pictures.testzip() is None
        assert pictures.namelist() == [line["picture"] for line in lines if "picture" in line]
        assert len(pictures.namelist()) == photos - photos // 10


def test_killed_workers_lose_nothing(start: Callable[..., Server], photo: bytes) -> None:
    server = start(workers=2, threads=20)
    jobs = [server.accept(make_zip(photo, photos=20), "?pictures=true") for _ in range(2)]
    server.wait_for(lambda: server.photos_done(jobs[0]) >= 5)
    for pid in server.worker_pids():
        kill(pid, signal.SIGKILL)
    for job in jobs:
        check_complete(server, job, photos=20)


def test_a_killed_server_loses_nothing(start: Callable[..., Server], photo: bytes) -> None:
    server = start()
    jobs = [server.accept(make_zip(photo, photos=20), "?pictures=true") for _ in range(2)]
    server.wait_for(lambda: server.photos_done(jobs[0]) >= 5)
    # In the middle of an upload, too:
    upload = threading.Thread(target=upload_slowly, args=(server, photo))
    upload.start()
    server.wait_for(lambda: len(list((server.jobs / "jobs").iterdir())) == 3)
    server.end()
    upload.join(WAIT_S)
    server.start()
    for job in jobs:
        check_complete(server, job, photos=20)
    assert len(server.get("/v1/jobs").json()["jobs"]) == 2
    assert len(list((server.jobs / "jobs").iterdir())) == 2


def upload_slowly(server: Server, photo: bytes) -> None:
    """Send a body in chunks whose size nobody knows before, and be cut off."""

    def chunks() -> Iterator[bytes]:
        for _ in range(WAIT_S * 10):
            yield photo
            time.sleep(0.1)

    with pytest.raises(requests.RequestException):
        requests.post(f"{server.url}/v1/jobs", data=chunks(), timeout=WAIT_S)


def test_sigterm_ends_after_the_current_photo(start: Callable[..., Server], photo: bytes) -> None:
    server = start(photo_s=0.2)
    job = server.accept(make_zip(photo, photos=10), "?pictures=true")
    server.wait_for(lambda: server.photos_done(job) >= 2)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(WAIT_S) == 0
    server.start()
    assert 2 <= server.photos_done(job) < 10
    check_complete(server, job, photos=10)


def test_photos_of_requests_overtake_and_the_next_job_begins_when_one_is_cancelled(
    start: Callable[..., Server], photo: bytes
) -> None:
    server = start()
    first = server.accept(make_zip(photo, photos=1000))
    content = make_zip(photo, photos=20)
    parts = (content[i : i + 1000] for i in range(0, len(content), 1000))
    second = server.accept(parts)  # a body whose size is not announced
    server.wait_for(lambda: server.photos_done(first) >= 2)
    for _ in range(5):
        answer = server.session.post(
            f"{server.url}/v1/segment", files={"image": photo}, timeout=WAIT_S
        )
        assert answer.status_code == 200
    assert server.state(first) == "running"
    assert server.get(second).json()["jobs_before"] == 1

    assert server.session.delete(server.url + first, timeout=WAIT_S).status_code == 204
    server.wait_for(lambda: server.state(second) == "done")
    assert len(server.lines(second)) == 20
    assert server.state(first) == "cancelled"
    assert len(list((server.jobs / "jobs").iterdir())) == 1


def test_the_example_of_the_documentation_slow_uploads_and_expiry(
    start: Callable[..., Server], photo: bytes, tmp_path: Path
) -> None:
    server = start(jobs_keep_s=3, deadline_s=2)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo)
    text = (TESTS.parent / "docs" / "jobs.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "http://127.0.0.1:8080" in example
    done = subprocess.run(
        [sys.executable, "-c", example.replace("http://127.0.0.1:8080", server.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done {'done': 2, 'failed': 0, 'total': 2}\na.jpg ")

    # It takes longer than a request may, but the client never falls silent.
    job = server.accept(slow_parts(photo + bytes(2**20), parts=10, pause_s=0.5))
    server.wait_for(lambda: server.state(job) == "done")
    assert len(server.lines(job)) == 1
    server.wait_for(lambda: server.state(job) == "expired")
    assert server.get(f"{job}/results").status_code == 410
    server.wait_for(lambda: not list((server.jobs / "jobs").iterdir()))


def slow_parts(content: bytes, *, parts: int, pause_s: float) -> Iterator[bytes]:
    size = -(-len(content) // parts)
    for start in range(0, len(content), size):
        time.sleep(pause_s)
        yield content[start : start + size]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root can make a small disk, and not everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(start: Callable[..., Server], photo: bytes, small_disk: Path) -> None:
    server = start(jobs=small_disk / "jobs", job_max_bytes=10 * 2**20)
    job = server.accept(make_zip(photo, photos=30), "?pictures=true")
    ended = server.accept(make_zip(photo, photos=30))
    server.wait_for(lambda: server.photos_done(job) >= 2)
    filler = small_disk / "filler"
    fill(filler)

    refused = server.post(make_zip(photo, photos=30))
    assert refused.status_code == 507
    assert refused.json()["code"] == "job_store_full"
    done = server.photos_done(job)
    time.sleep(1)  # what does not happen takes a while to see
    assert server.photos_done(job) <= done + 5  # the last block of some file had room
    assert server.state(job) == "running"
    assert len(list((server.jobs / "jobs").iterdir())) == 2
    assert server.session.delete(server.url + ended, timeout=WAIT_S).status_code == 204

    filler.unlink()
    check_complete(server, job, photos=30)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
