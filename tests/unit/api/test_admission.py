"""The queue in front of the networks, alone and behind the API."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api_fakes import check_problem, make_client, make_registry
from maskserve.api.admission import Admission, Deadline
from maskserve.api.request import ARRIVED
from maskserve.api.services import Services
from maskserve.api.work import segmented
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


def has_grown(queue: Sequence[object], before: int) -> bool:
    return len(queue) > before


class TestPlaces:
    def test_they_are_limited_and_come_back(self) -> None:
        admission = Admission(concurrency=1, queue_size=1)
        with admission.place():
            admission.refuse_if_full()
            with admission.place():
                with pytest.raises(ServerFullError, match="2 photos"):
                    admission.refuse_if_full()
                with pytest.raises(ServerFullError), admission.place():
                    pass
        with admission.place():
            pass

    def test_they_come_back_after_an_error(self) -> None:
        admission = Admission(concurrency=1, queue_size=0)
        for _ in range(3):
            with pytest.raises(KeyError), admission.place(), admission.turn():
                raise KeyError

    def test_background_photos_take_none_of_the_others(self) -> None:
        admission = Admission(concurrency=1, queue_size=0)
        with admission.place(background=True), admission.place():
            pass

    def test_background_photos_wait_for_a_place(self) -> None:
        admission = Admission(concurrency=1, queue_size=0)
        had_one = threading.Event()

        def take() -> None:
            with admission.place(background=True):
                had_one.set()

        other = threading.Thread(target=take)
        with admission.place(background=True):
            other.start()
            assert not had_one.wait(0.05)
        assert had_one.wait(WAIT_S)
        other.join(WAIT_S)


class TestTurns:
    def test_none_came_in_time(self) -> None:
        admission = Admission(concurrency=1, queue_size=1)
        with admission.turn():
            with (
                pytest.raises(DeadlineError, match=r"0\.01 s"),
                admission.turn(deadline=Deadline.after(0.01)),
            ):
                pass
            assert admission.waiting == 0
        with admission.turn(deadline=Deadline.after(WAIT_S)) as queued_ms:
            assert queued_ms >= 0

    def test_what_comes_too_late_is_not_begun_even_if_nobody_else_is_there(self) -> None:
        admission = Admission(concurrency=1, queue_size=1)
        late = Deadline.after(1, arrived_s=time.monotonic() - 2)
        with pytest.raises(DeadlineError, match="not begun"), admission.turn(deadline=late):
            pytest.fail("it was begun")
        with admission.turn():
            pass

    def test_they_never_overlap(self) -> None:
        admission = Admission(concurrency=2, queue_size=20)
        inside = 0
        most = 0
        lock = threading.Lock()

        def work(number: int) -> None:
            nonlocal inside, most
            with admission.turn(background=number % 3 == 0):
                with lock:
                    inside += 1
                    most = max(most, inside)
                threading.Event().wait(0.002)
                with lock:
                    inside -= 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(20)))
        assert 1 <= most <= 2

    def test_first_come_first_served_and_the_background_last(self) -> None:
        changes: list[int] = []
        admission = Admission(concurrency=1, queue_size=20, on_wait=changes.append)
        served: list[str] = []

        def work(name: str) -> None:
            with admission.turn(background=name.startswith("background")):
                served.append(name)

        names = ["background 1", "photo 1", "photo 2", "background 2", "photo 3"]
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        with admission.turn():
            for thread in threads:
                queued = len(admission._queue)
                thread.start()
                wait_until(partial(has_grown, admission._queue, queued))
            assert admission.waiting == 3
        for thread in threads:
            thread.join(WAIT_S)
        assert served == ["photo 1", "photo 2", "photo 3", "background 1", "background 2"]
        assert (sum(changes), max(changes)) == (0, 1)


def post(client: FlaskClient, jpeg: bytes, **environ: object) -> TestResponse:
    return client.post(
        "/v1/segment", data=jpeg, content_type="image/jpeg", environ_overrides=environ
    )


class Network:
    """One that is busy until the test says so, and counts its photos."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.finish = threading.Event()
        self.photos = 0

    def __call__(self) -> None:
        self.photos += 1
        self.begun.release()
        assert self.finish.wait(WAIT_S)


@pytest.fixture
def network() -> Network:
    return Network()


class Unread(BytesIO):
    """A body that must not be read."""

    def read(self, _: int | None = -1) -> bytes:
        pytest.fail("the body was read")

    readinto = readline = read  # type: ignore[assignment]


def test_full_server_refuses_at_once_and_recovers(network: Network, jpeg: bytes) -> None:
    client = make_client(make_registry(before=network), concurrency=1, queue_size=1)
    app = client.application
    services: Services = app.extensions["maskserve"]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, app.test_client(), jpeg)
        assert network.begun.acquire(timeout=WAIT_S)
        second = pool.submit(post, app.test_client(), jpeg)
        wait_until(lambda: services.admission.waiting == 1)
        assert "maskserve_queue_depth 1.0" in client.get("/metrics").text

        refused = client.post(
            "/v1/segment",
            input_stream=Unread(),
            content_length=1000,
            content_type="application/json",
        )
        check_problem(refused, 503, "server_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/healthz").status_code == 200

        network.finish.set()
        assert first.result(WAIT_S).status_code == 200
        assert second.result(WAIT_S).status_code == 200
    assert post(client, jpeg).status_code == 200


def test_a_photo_is_unpacked_once_there_is_a_place(jpeg: bytes) -> None:
    services: Services = make_client(
        make_registry(), concurrency=1, queue_size=0
    ).application.extensions["maskserve"]
    with segmented(services, lambda: jpeg, model="balloon") as work:
        assert work.image.shape == (48, 64, 3)
        with (
            pytest.raises(ServerFullError),
            segmented(services, lambda: pytest.fail("unpacked"), model="balloon"),
        ):
            pass
        with segmented(services, jpeg, model="balloon", background=True) as behind:
            assert len(behind.instances) == len(work.instances)


def test_deadline_passes_in_the_queue(network: Network, jpeg: bytes) -> None:
    client = make_client(make_registry(before=network), deadline_s=0.5)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, client.application.test_client(), jpeg)
        assert network.begun.acquire(timeout=WAIT_S)
        check_problem(post(client, jpeg), 504, "deadline_passed", "not begun")
        network.finish.set()
        # It was begun in time, but is of no use to its client any more.
        check_problem(first.result(WAIT_S), 504, "deadline_passed", "too late")
    assert network.photos == 1


def test_the_deadline_counts_from_the_arrival_of_the_request(network: Network, jpeg: bytes) -> None:
    client = make_client(make_registry(before=network), deadline_s=30)
    late = post(client, jpeg, **{ARRIVED: time.monotonic() - 31})
    check_problem(late, 504, "deadline_passed", "30 s", "not begun")
    assert network.photos == 0


def test_nothing_is_done_for_a_client_that_has_left(network: Network, jpeg: bytes) -> None:
    network.finish.set()
    client = make_client(make_registry(before=network))
    here, there = socket.socketpair()
    with here:
        with there:
            assert post(client, jpeg, **{"gunicorn.socket": here}).status_code == 200
            there.sendall(b"GET /healthz")  # already sends its next request
            assert post(client, jpeg, **{"gunicorn.socket": here}).status_code == 200
        here.recv(100)
        check_problem(post(client, jpeg, **{"gunicorn.socket": here}), 400, "bad_request", "left")
    assert network.photos == 2
