"""Jobs through crashes, a full disk, and clocks that jump: nothing accepted is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from maskserve.benchmarking.server import ServerProcess
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import encode_image
from soak.conftest import Soak

MODEL = "balloon-fast"
WAIT_S = 300
POLL_S = 0.05
YEARS_S = 10 * 365 * 24 * 3600
ENDED = ("done", "failed", "cancelled", "expired")


@pytest.fixture(scope="module")
def photo() -> bytes:
    scene, _ = render_balloons(size=(240, 320), count=5, seed=0)
    return encode_image(scene, "image/jpeg")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True)
class Clock:
    """The time of day of a server that is started with ``environment``."""

    path: Path
    environment: dict[str, str]

    def jump(self, seconds: int) -> None:
        """To so many seconds from the true time."""
        with self.path.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("setting a server's clock needs a C compiler")
    library, path = tmp_path / "clock.so", tmp_path / "clock"
    source = Path(__file__).with_name("clock.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    path.write_bytes(bytes(8))
    return Clock(path, {"LD_PRELOAD": str(library), "CLOCK_FILE": str(path)})


def serve(folder: Path, *, keep_s: int = 600, clock: Clock | None = None) -> ServerProcess:
    environment = {"MASKSERVE_JOBS_DIR": str(folder), "MASKSERVE_JOBS_KEEP_S": str(keep_s)}
    return ServerProcess([MODEL], environment=environment | (clock.environment if clock else {}))


def send_job(server: ServerProcess, photo: bytes, *, count: int, pictures: bool = False) -> str:
    """Have a job accepted; returns its address."""
    files = [("images", (f"{number}.jpg", photo)) for number in range(count)]
    params = {"masks": "none", "pictures": str(pictures).lower()}
    answer = requests.post(f"{server.url}/v1/jobs", files=files, params=params, timeout=WAIT_S)
    assert answer.status_code == 202, answer.text
    return answer.headers["Location"]


def job_at(server: ServerProcess, address: str) -> dict[str, Any]:
    answer = requests.get(server.url + address, timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def wait_for_end(server: ServerProcess, address: str) -> dict[str, Any]:
    end = time.monotonic() + WAIT_S
    while (job := job_at(server, address))["state"] not in ENDED:
        assert time.monotonic() < end, job
        time.sleep(POLL_S)
    return job


def check_results(server: ServerProcess, address: str, *, count: int) -> None:
    """Each photo has its line, once, in order."""
    answer = requests.get(f"{server.url}{address}/results", timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["index"] for line in lines] == list(range(count))
    assert [line["file"] for line in lines] == [f"{number}.jpg" for number in range(count)]
    assert all(line["instances"] for line in lines)


def is_served(server: ServerProcess, photo: bytes) -> bool:
    answer = requests.post(f"{server.url}/v1/segment", data=photo, timeout=WAIT_S)
    ready = requests.get(f"{server.url}/readyz", timeout=WAIT_S)
    return answer.status_code == ready.status_code == 200


def test_crashes_while_jobs_run(
    soak: Soak, photo: bytes, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Workers are killed, then everything, and the same folder is served again."""
    count = soak.choose(short=8, long=60)
    kills = soak.choose(short=1, long=8)
    chance = random.Random(soak.seed)
    with serve(tmp_path) as server:
        addresses = [send_job(server, photo, count=count) for _ in range(2)]
        for _ in range(kills):
            # A photo over which the server dies again and again would be given up.
            wait_for_progress(server, addresses)
            time.sleep(chance.uniform(0, 0.5))
            os.kill(server.worker_pids[0], signal.SIGKILL)
        wait_for_progress(server, addresses)
        done_before = photos_done(server, addresses)
        os.kill(server.pid, signal.SIGKILL)
    with serve(tmp_path) as server:
        jobs = [wait_for_end(server, address) for address in addresses]
        report(
            jobs=len(jobs),
            photos=count * len(jobs),
            kills=kills + 1,
            done_before_the_last_kill=done_before,
            states=[job["state"] for job in jobs],
        )
        assert [job["state"] for job in jobs] == ["done", "done"]
        for address in addresses:
            check_results(server, address, count=count)


def wait_for_progress(server: ServerProcess, addresses: Sequence[str]) -> None:
    """Wait until a worker is there and has worked off one more photo."""
    wait_until_ready(server)
    before = photos_done(server, addresses)
    end = time.monotonic() + WAIT_S
    while photos_done(server, addresses) == before:
        assert time.monotonic() < end
        time.sleep(POLL_S)


def photos_done(server: ServerProcess, addresses: Sequence[str]) -> int:
    return sum(job_at(server, address)["photos"]["done"] for address in addresses)


def wait_until_ready(server: ServerProcess) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with suppress(requests.RequestException):
            if requests.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 200:
                return
        time.sleep(POLL_S)
    pytest.fail("no worker came back")


@pytest.mark.long
def test_full_disk(soak: Soak, photo: bytes, small_disk: Path, report: Callable[..., None]) -> None:
    """A job waits for room or fails with a word of it; everything else goes on."""
    count = 60
    with serve(small_disk / "jobs") as server:
        address = send_job(server, photo, count=count, pictures=True)
        while job_at(server, address)["photos"]["done"] < 2:
            time.sleep(POLL_S)
        filler = small_disk / "filler"
        fill(filler)
        refused = requests.post(f"{server.url}/v1/jobs", files={"images": photo}, timeout=WAIT_S)
        assert refused.status_code == 507
        assert refused.json()["code"] == "job_store_full"
        assert is_served(server, photo)
        time.sleep(10)
        while_full = job_at(server, address)
        filler.unlink()
        job = wait_for_end(server, address)
        report(
            photos=count,
            done_while_full=while_full["photos"]["done"],
            state_while_full=while_full["state"],
            state_at_the_end=job["state"],
        )
        if job["state"] == "done":
            check_results(server, address, count=count)
        else:
            assert job["state"] == "failed"
            assert job["error"]["code"] == "job_store_full"
            check_results(server, address, count=job["photos"]["done"])
        # There is room again.
        again = send_job(server, photo, count=2)
        assert wait_for_end(server, again)["state"] == "done"
        check_results(server, again, count=2)
        assert is_served(server, photo)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    size = 2**20
    with path.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


@pytest.mark.long
def test_clock_jumps(
    photo: bytes, tmp_path: Path, clock: Clock, report: Callable[..., None]
) -> None:
    """Ten years ahead, then back to ten years ago: nothing expires early, stops or fails."""
    count = 15
    created = []
    with serve(tmp_path / "jobs", clock=clock) as server:
        addresses: list[str] = []
        for jump_s in (0, YEARS_S, -YEARS_S, 0):
            addresses.append(send_job(server, photo, count=count))
            clock.jump(jump_s)  # while the job runs
            assert is_served(server, photo)
            for address in addresses:
                job = wait_for_end(server, address)
                assert job["state"] == "done"
                check_results(server, address, count=count)
            addresses.append(send_job(server, photo, count=2))
            created.append(wait_for_end(server, addresses[-1])["created_at"][:4])
            check_results(server, addresses.pop(), count=2)
        report(jobs=len(addresses) * 2, years=created)
        this_year, future, past, back = map(int, created)
        assert future - 10 == this_year == past + 10 == back
        assert "Traceback" not in server.log


@pytest.mark.long
def test_results_expire_whatever_the_clock_says(photo: bytes, tmp_path: Path, clock: Clock) -> None:
    with serve(tmp_path / "jobs", keep_s=2, clock=clock) as server:
        address = send_job(server, photo, count=1)
        clock.jump(-YEARS_S)
        end = time.monotonic() + WAIT_S
        while job_at(server, address)["state"] != "expired":
            assert time.monotonic() < end
            time.sleep(POLL_S)
        assert requests.get(f"{server.url}{address}/results", timeout=WAIT_S).status_code == 410
