"""Clients that are slow, silent or lie, on plain sockets against a server of four threads."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from api_server import WAIT_S, ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")

THREADS = 4
POST = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"threads": THREADS, "queue_size": 2, "deadline_s": 3}
    with ServerProcess(folder, **settings) as server:
        server.wait_until_ready()
        yield server
        # Ctrl-C ends it even while a client keeps a thread waiting.
        with server.connect() as slow:
            slow.sendall(POST + b"Content-Length: 10000\r\n\r\nabc")
            check_health(server)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(WAIT_S) == 0


def read_all(client: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask(server: ServerProcess, data: bytes, *, ended: bool = False) -> bytes:
    with server.connect() as client:
        client.sendall(data)
        if ended:
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def check_health(server: ServerProcess) -> None:
    assert requests.get(f"{server.url}/healthz", timeout=WAIT_S).status_code == 200


def check_polite(server: ServerProcess, jpeg: bytes) -> None:
    """Somebody else is served, long before the deadline of the others would free a thread."""
    check_health(server)
    answer = requests.post(f"{server.url}/v1/segment", data=jpeg, timeout=WAIT_S)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/seg", POST + b"X-Slow: "],
    ids=["nothing", "half a line", "half a head"],
)
def test_many_clients_that_send_no_request_take_no_thread(
    server: ServerProcess, jpeg: bytes, sent: bytes
) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(5 * THREADS)]
        for client in slow:
            client.sendall(sent)
        check_polite(server, jpeg)
        for client in slow:
            client.settimeout(0.01)
            with pytest.raises(TimeoutError):  # they may go on
                client.recv(1)


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 10000\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=["length", "chunked"],
)
def test_slow_bodies_make_room_for_others(server: ServerProcess, jpeg: bytes, sent: bytes) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(THREADS)]
        for client in slow:
            client.sendall(sent)
        check_polite(server, jpeg)
        answers = [read_all(client) for client in slow]
    pushed_out = [answer for answer in answers if b" 503 " in answer.partition(b"\r\n")[0]]
    assert pushed_out
    assert all(b'"server_full"' in answer for answer in pushed_out)
    assert all(b"Retry-After: " in answer for answer in pushed_out)
    assert all(b"Connection: close" in answer for answer in pushed_out)


def test_a_body_that_does_not_arrive_in_time(server: ServerProcess) -> None:
    answer = ask(server, POST + b"Content-Length: 10\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer


def test_a_body_that_does_not_arrive_in_time_on_a_connection_that_was_used_before(
    server: ServerProcess,
) -> None:
    with server.connect() as client:
        client.sendall(HEALTH)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(POST + b"Content-Length: 10\r\n\r\nabc")
        assert b"HTTP/1.1 408 " in read_all(client)


def test_a_client_that_does_not_take_its_answers_is_cut_off(server: ServerProcess) -> None:
    wanted = b"GET /openapi/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # The buffers in between hold some megabytes; behind them the server has to wait, and when
        # it has had enough, there is nobody to send to.
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            client.sendall(wanted * 500_000)


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: ten\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        POST + b"Content-Length: 10\r\n\r\nabc",
    ],
    ids=["negative", "text", "two", "and chunked", "bad chunk", "too large"],
)
def test_wrong_lengths(server: ServerProcess, sent: bytes) -> None:
    answer = ask(server, sent, ended=True)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"application/problem+json" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "Traceback" not in server.log


def test_a_length_that_is_too_small(server: ServerProcess, jpeg: bytes) -> None:
    answer = ask(server, POST + b"Content-Length: 20\r\n\r\n" + jpeg, ended=True)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b'"image_undecodable"' in answer
    assert b" 200 " not in answer


def test_no_length_means_no_body(server: ServerProcess, jpeg: bytes) -> None:
    answer = ask(server, POST + b"\r\n" + jpeg, ended=True)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b'"image_missing"' in answer


def test_a_length_beyond_the_limit_is_refused_before_the_body(server: ServerProcess) -> None:
    with server.connect() as client:
        client.sendall(POST + b"Content-Length: 99999999999999\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000, 431),
    ],
    ids=["line", "field", "fields", "no end"],
)
def test_heads_are_bounded(server: ServerProcess, head: bytes, status: int) -> None:
    assert ask(server, head, ended=True).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_chunked_photo_in_small_pieces(server: ServerProcess, jpeg: bytes) -> None:
    head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [jpeg[at : at + 100] for at in range(0, len(jpeg), 100)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(head), 7):
            client.sendall(head[at : at + 7])
        for at in range(0, len(body), 333):
            client.sendall(body[at : at + 333])
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_requests_that_come_together_are_answered_one_after_the_other(
    server: ServerProcess, jpeg: bytes
) -> None:
    photo = POST + b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg
    last = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = ask(server, HEALTH + photo + last)
    assert answer.count(b"HTTP/1.1 200 ") == 3


def test_nothing_is_done_for_a_client_that_left_while_it_waited(
    server: ServerProcess, jpeg: bytes
) -> None:
    server.running.unlink(missing_ok=True)
    server.hold.touch()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(requests.post, f"{server.url}/v1/segment", data=jpeg, timeout=WAIT_S)
        server.wait_for(server.running.exists)
        photo = b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg
        with server.connect() as client:
            client.sendall(POST + b"X-Request-Id: left\r\n" + photo)
            depth = "maskserve_queue_depth 1.0"
            server.wait_for(
                lambda: depth in requests.get(f"{server.url}/metrics", timeout=WAIT_S).text
            )
        server.hold.unlink()
        if first.result(WAIT_S).status_code == 504:
            pytest.skip("this machine is so busy that the deadline passed first")
    server.wait_for(lambda: '"left"' in server.log)
    (line,) = [line for line in server.lines() if line.get("request_id") == "left"]
    assert line["status"] == 400


def test_no_text_of_a_client_forges_a_line_or_a_header(server: ServerProcess) -> None:
    forged = b'{"level": "error"}\r\nSet-Cookie: a=b'
    quoted = "".join(f"%{byte:02x}" for byte in forged).encode()
    ask(server, b"GET /" + quoted + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
    ask(server, b"GET / HTTP/1.1\r\nX-Request-Id: \x1b[31m\r\nConnection: close\r\n\r\n")
    ask(server, b"G\x1b[31mT / HTTP/1.1\r\n\r\n", ended=True)
    answer = ask(
        server,
        b"GET /v1/models/" + quoted + b" HTTP/1.1\r\nX-Request-Id: a%0d%0ab\r\n"
        b"Connection: close\r\n\r\n",
    )
    assert b"\r\nSet-Cookie" not in answer
    assert "\x1b" not in server.log
    assert all("time" in line for line in server.lines())  # each is whole
