"""What signals do to a server that is busy: stop, crash of the worker, crash of all."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import requests

from load_clients import Answer, Client, Crowd, statuses
from maskserve.benchmarking.server import ServerProcess
from maskserve.core.manifest import Manifest
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.bundle import MANIFEST_NAME, shipped_bundles
from maskserve.runtime.image_io import encode_image
from soak.conftest import Soak

MODEL = "balloon-fast"
CLIENTS = 12
WAIT_S = 120
POLL_S = 0.02


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    sizes = ((240, 320), (600, 800))
    return [
        encode_image(render_balloons(size=size, count=5, seed=seed)[0], "image/jpeg")
        for seed, size in enumerate(sizes)
    ]


def test_sigterm_under_load(soak: Soak, photos: list[bytes], report: Callable[..., None]) -> None:
    """Behind a load balancer that asks /readyz, no request is lost, and the exit code is 0."""
    rounds = soak.choose(short=1, long=3)
    answers: list[Answer] = []
    stops_s = []
    for _ in range(rounds):
        with (
            ServerProcess([MODEL], environment={"MASKSERVE_DRAIN_S": "1"}) as server,
            Crowd(server, photos, clients=CLIENTS, keep_alive=False) as crowd,
        ):
            balancer = threading.Thread(target=balance, args=(server, crowd))
            balancer.start()
            crowd.wait_for(answers=20)
            start = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            exit_code = server.wait(WAIT_S)
            stops_s.append(round(time.monotonic() - start, 1))
            balancer.join()
        answers += crowd.answers
        assert exit_code == 0, server.log
    report(rounds=rounds, clients=CLIENTS, answers=statuses(answers), until_exit_s=stops_s)
    assert {answer.status for answer in answers} == {200}


def balance(server: ServerProcess, crowd: Crowd) -> None:
    """Let the crowd send while the server is ready."""
    with requests.Session() as session, suppress(requests.ConnectionError):
        while session.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 200:
            time.sleep(POLL_S)
    crowd.may_send.clear()


@pytest.mark.long
def test_sighup_under_load(
    photos: list[bytes], tmp_path: Path, report: Callable[..., None]
) -> None:
    """Sound and broken bundles come and go; every request is answered, by a sound one."""
    rounds = 5
    bundle = tmp_path / MODEL
    shutil.copytree(shipped_bundles()[MODEL], bundle)
    until_new_s = []
    with ServerProcess([bundle]) as server:
        with Crowd(server, photos, clients=CLIENTS) as crowd:
            for number in range(rounds):
                crowd.wait_for(answers=10)
                sound = (bundle / MANIFEST_NAME).read_text()
                (bundle / MANIFEST_NAME).write_text(sound[: len(sound) // 2])
                os.kill(server.pid, signal.SIGHUP)
                wait_until(partial(has_refused, server, number + 1))
                version = f"reloaded-{number}"
                manifest = Manifest.from_json(sound.encode(), where="here")
                changed = manifest.model_copy(update={"version": version})
                (bundle / MANIFEST_NAME).write_text(changed.to_json())
                start = time.monotonic()
                os.kill(server.pid, signal.SIGHUP)
                wait_until(partial(serves, server, version))
                until_new_s.append(round(time.monotonic() - start, 2))
            crowd.wait_for(answers=10)
        report(
            reloads=rounds,
            refused_bundles=rounds,
            clients=CLIENTS,
            answers=statuses(crowd.answers),
            until_the_new_one_answers_s=until_new_s,
        )
        assert {answer.status for answer in crowd.answers} <= {200, 503}
        assert {answer.code for answer in crowd.answers} <= {"", "server_full"}


def has_refused(server: ServerProcess, bundles: int) -> bool:
    return server.log.count("is refused") == bundles


def serves(server: ServerProcess, version: str) -> bool:
    answer = requests.get(f"{server.url}/v1/models", timeout=WAIT_S)
    return bool(answer.json()["models"][0]["version"] == version)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_sigkill_of_a_worker(
    soak: Soak, photos: list[bytes], workers: int, report: Callable[..., None]
) -> None:
    """Only what the killed process had in hand is lost; the master starts another."""
    rounds = soak.choose(short=1, long=5)
    until_ready_s = []
    with ServerProcess([MODEL], environment={"MASKSERVE_WORKERS": str(workers)}) as server:
        with Crowd(server, photos, clients=CLIENTS) as crowd:
            for _ in range(rounds):
                crowd.wait_for(answers=10)
                killed = server.worker_pids[0]
                start = time.monotonic()
                os.kill(killed, signal.SIGKILL)
                wait_until(partial(is_ready, server, killed, workers))
                until_ready_s.append(round(time.monotonic() - start, 2))
            crowd.wait_for(answers=10)
        lost = [answer for answer in crowd.answers if answer.status == 0]
        report(
            kills=rounds,
            clients=CLIENTS,
            answers=statuses(crowd.answers),
            until_ready_s=until_ready_s,
        )
        assert len(lost) <= rounds * CLIENTS
        assert {answer.status for answer in crowd.answers} <= {0, 200, 503}
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(WAIT_S) == 0


def is_ready(server: ServerProcess, killed: int, workers: int) -> bool:
    """There are as many workers as before, and the server is ready."""
    alive = server.worker_pids
    if killed in alive or server.pid in alive or len(alive) < workers:
        return False
    with suppress(requests.RequestException):
        return requests.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 200
    return False


@pytest.mark.long
def test_sigkill_of_the_master(photos: list[bytes], report: Callable[..., None]) -> None:
    """The worker does not live on alone: its port is free again."""
    with ServerProcess([MODEL]) as server:
        with Client(server, "alone", keep_alive=False) as client:
            assert client.send(photos[0]).status == 200
            start = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: client.send(photos[0]).refused_connection)
        report(until_gone_s=round(time.monotonic() - start, 1))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(POLL_S)
