"""The queue in front of the networks, alone and behind the API."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api_fakes import check_problem, make_client, make_registry
from maskserve.api.admission import Admission
from maskserve.core.errors import DeadlineError, ServerFullError

WAIT_S = 10


def wait_until(condition: Callable[[], bool]) -> None:
    """Tests of threads poll with a generous limit, so that a slow machine does not matter."""
    pause = threading.Event()
    for _ in range(WAIT_S * 100):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("the condition did not come true")


def test_places_are_limited_and_come_back() -> None:
    admission = Admission(concurrency=1, queue_size=1, deadline_s=1)
    with (
        admission.place(),
        admission.place(),
        pytest.raises(ServerFullError),
        admission.place(),
    ):
        pass
    with admission.place():
        pass


def test_a_place_comes_back_after_an_error() -> None:
    admission = Admission(concurrency=1, queue_size=0, deadline_s=1)
    for _ in range(3):
        with pytest.raises(KeyError), admission.place(), admission.turn():
            raise KeyError


def test_no_turn_in_time() -> None:
    admission = Admission(concurrency=1, queue_size=1, deadline_s=0.01)
    with admission.turn():
        with pytest.raises(DeadlineError, match=r"0\.01 s"), admission.turn():
            pass
        assert admission.waiting == 0
    with admission.turn() as queued_ms:
        assert queued_ms >= 0


def test_turns_never_overlap() -> None:
    admission = Admission(concurrency=2, queue_size=20, deadline_s=WAIT_S)
    inside = 0
    most = 0
    lock = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        with admission.turn():
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.002)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(20)))
    assert 1 <= most <= 2


def post(client: FlaskClient, jpeg: bytes) -> TestResponse:
    return client.post("/v1/segment", data=jpeg, content_type="image/jpeg")


def test_full_server_refuses_at_once_and_recovers(jpeg: bytes) -> None:
    running, finish = threading.Event(), threading.Event()

    def block() -> None:
        running.set()
        assert finish.wait(WAIT_S)

    registry = make_registry(before=block)
    client = make_client(registry, concurrency=1, queue_size=1)
    app = client.application
    admission: Admission = app.extensions["maskserve"].admission
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, app.test_client(), jpeg)
        assert running.wait(WAIT_S)
        second = pool.submit(post, app.test_client(), jpeg)
        wait_until(lambda: admission.waiting == 1)
        assert "maskserve_queue_depth 1.0" in client.get("/metrics").text

        refused = post(client, jpeg)
        check_problem(refused, 503, "server_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/healthz").status_code == 200

        finish.set()
        assert first.result(WAIT_S).status_code == 200
        assert second.result(WAIT_S).status_code == 200
    assert post(client, jpeg).status_code == 200


def test_deadline_passes_in_the_queue(jpeg: bytes) -> None:
    running, finish = threading.Event(), threading.Event()

    def block() -> None:
        running.set()
        assert finish.wait(WAIT_S)

    client = make_client(make_registry(before=block), deadline_s=0.05)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, client.application.test_client(), jpeg)
        assert running.wait(WAIT_S)
        check_problem(post(client, jpeg), 504, "deadline_passed")
        finish.set()
        assert first.result(WAIT_S).status_code == 200
