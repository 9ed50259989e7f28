from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from maskserve.benchmarking.clients import send_photos
from maskserve.core.errors import EngineError


class Handler(BaseHTTPRequestHandler):
    """Answers what was asked for, but 503 to the photo b"refuse"."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[int, bytes]]

    def do_POST(self) -> None:
        photo = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.client_address[1], photo))
        self.send_response(503 if photo == b"refuse" else 200)
        self.send_header("Content-Type", self.headers["Accept"])
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"body")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def connect() -> Iterator[Callable[[], HTTPConnection]]:
    Handler.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield partial(HTTPConnection, "127.0.0.1", server.server_port, timeout=30)
        server.shutdown()
        thread.join()


def test_every_client_sends_all_its_timed_photos_over_one_connection(
    connect: Callable[[], HTTPConnection],
) -> None:
    traffic = send_photos(connect, [b"a", b"b"], accept="image/jpeg", clients=3, rounds=4)
    assert traffic.times_ms.shape == (12,)
    assert (traffic.times_ms > 0).all()
    assert traffic.times_ms.max() <= traffic.wall_s * 1e3 + 1e-6
    assert traffic.per_second == 12 / traffic.wall_s
    by_port: dict[int, list[bytes]] = {}
    for port, photo in Handler.seen:
        by_port.setdefault(port, []).append(photo)
    assert sorted(by_port.values(), key=lambda photos: (len(photos), photos)) == [
        *([photo] for photo in (b"a", b"a", b"b")),  # untimed
        [b"a", b"b", b"a", b"b"],
        [b"a", b"b", b"a", b"b"],
        [b"b", b"a", b"b", b"a"],
    ]


@pytest.mark.parametrize("photos", [[b"refuse"], [b"a", b"refuse"]])
def test_an_answer_that_is_not_200_stops_all(
    connect: Callable[[], HTTPConnection], photos: list[bytes]
) -> None:
    with pytest.raises(EngineError, match="The server answered 503: body"):
        send_photos(connect, photos, accept="image/jpeg", clients=2, rounds=3)


def test_no_server_is_an_error_of_ours() -> None:
    nobody = partial(HTTPConnection, "127.0.0.1", 9, timeout=5)
    with pytest.raises(EngineError, match="gave no answer"):
        send_photos(nobody, [b"a"], accept="image/jpeg", clients=1, rounds=1)
