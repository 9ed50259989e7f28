"""What stands in front of Serve's proxy, around a proxy that does as the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskserve.api.problems import PROBLEM_JSON
from maskserve.cluster import proxy
from maskserve.cluster.proxy import Receive, Send, SendAgain

Message = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]
Turn = Callable[[Send], Any]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_PAUSES_S", (0,) * 8)


PLAIN: Headers = [(b"content-type", b"text/plain")]
PROBLEM: Headers = [(b"content-type", PROBLEM_JSON.encode())]


class Serve:
    """As Serve's proxy: reads the body, then does what its next turn says.

    Attributes:
        bodies: What it read, each time.
    """

    def __init__(self, *turns: Turn) -> None:
        self._turns = iter(turns)
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        await next(self._turns)(send)


def answers(status: int, body: bytes = b"", headers: Headers = PLAIN) -> Turn:
    async def turn(send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return turn


async def dies(send: Send) -> None:
    """Serve says nothing where a replica died with the request."""


async def dies_halfway(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


def ask(serve: Serve, *chunks: bytes, then: Message | None = None) -> list[Message]:
    """Messages to a client that sends a body in chunks, and ``then`` something else or nothing."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append(then or {"type": "http.request", "body": b"", "more_body": False})
    waiting = iter(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(SendAgain(serve)({"type": "http"}, receive, send))
    return sent


def status_of(sent: list[Message]) -> int:
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    status: int = sent[0]["status"]
    return status


def check_problem(sent: list[Message], code: str, status: int = 503) -> None:
    headers = dict(sent[0]["headers"])
    assert status_of(sent) == status
    assert headers[b"content-type"] == PROBLEM_JSON.encode()
    assert headers[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert int(headers[b"retry-after"]) >= 1
    assert b"content-security-policy" in headers
    problem = json.loads(sent[1]["body"])
    assert (problem["status"], problem["code"]) == (status, code)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=8), max_size=6), deaths=st.integers(0, 4))
def test_the_same_request_is_sent_again(chunks: list[bytes], deaths: int) -> None:
    turns = [dies, dies_halfway, dies_halfway, dies][:deaths]
    serve = Serve(*turns, answers(200, b"whole"))
    sent = ask(serve, *chunks)
    assert status_of(sent) == 200
    assert sent[1]["body"] == b"whole"
    assert serve.bodies == [b"".join(chunks)] * (deaths + 1)


@pytest.mark.parametrize("death", [dies, dies_halfway])
def test_replicas_that_always_die_are_a_problem(death: Turn) -> None:
    serve = Serve(*[death] * 8)
    check_problem(ask(serve, b"photo"), "server_not_ready")
    assert len(serve.bodies) == 8


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(503, 503, "server_full"), (408, 504, "deadline_passed"), (404, 503, "server_not_ready")],
)
def test_what_serve_says_itself_is_a_problem(said: int, status: int, code: str) -> None:
    serve = Serve(answers(said, b"Serve's own words"))
    check_problem(ask(serve, b"photo"), code, status)
    assert len(serve.bodies) == 1


@pytest.mark.parametrize(
    ("status", "headers"), [(503, PROBLEM), (500, PROBLEM), (404, PROBLEM), (200, PLAIN)]
)
def test_what_the_app_says_stays(status: int, headers: Headers) -> None:
    serve = Serve(answers(status, b"as it is", headers))
    sent = ask(serve, b"photo")
    assert status_of(sent) == status
    assert sent[0]["headers"] == headers
    assert sent[1]["body"] == b"as it is"
    assert len(serve.bodies) == 1


def test_a_request_is_not_sent_again_for_nobody() -> None:
    serve = Serve(dies, answers(200))
    assert ask(serve, b"half a photo", then={"type": "http.disconnect"}) == []
    assert len(serve.bodies) == 1


def test_a_body_too_long_to_keep_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_KEPT_BYTES", 10)
    chunks = [b"123456"] * 4
    serve = Serve(answers(413, b"", PROBLEM))
    assert status_of(ask(serve, *chunks)) == 413
    assert serve.bodies == [b"".join(chunks)]
    serve = Serve(dies)
    check_problem(ask(serve, *chunks), "server_not_ready")
    assert len(serve.bodies) == 1


def test_a_repeated_header_is_sent_once() -> None:
    repeated: Headers = [(b"x-request-id", b"7"), *PLAIN, (b"x-request-id", b"7")]
    sent = ask(Serve(answers(200, b"", repeated)))
    assert sent[0]["headers"] == [(b"x-request-id", b"7"), *PLAIN]
