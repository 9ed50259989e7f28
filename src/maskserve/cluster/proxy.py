"""What stands in front of Ray Serve's own HTTP proxy, on every node.

Serve gives no answer where a replica of the front dies with a request, and an answer of its own
where all of them are full, where it has waited too long, and where there is no application (yet, or
any more). The first request is sent again, and the others get the problem that they would get from
the app. All that the API offers here may be asked twice, since nothing is kept.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.middleware import Middleware

from maskserve.api.browsers import SECURITY_HEADERS
from maskserve.api.problems import PROBLEM_JSON, RETRY_AFTER_S, STATUS_OF, make_problem
from maskserve.core.errors import (
    DeadlineError,
    MaskserveError,
    ServerFullError,
    ServerNotReadyError,
)

__all__ = ["SendAgain", "make_middlewares"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PAUSES_S = (0, 0.1, 0.2, 0.5, 1, 2, 4, 8)
"""Before each attempt: it takes seconds until a lost node is known to be lost."""
_MEANINGS: dict[int, MaskserveError] = {
    404: ServerNotReadyError("The server is starting, or stopping."),
    408: DeadlineError("No replica answered in time."),
    503: ServerFullError("All replicas have as many requests as they take."),
}
"""What Serve's own answers mean, by status."""
_KEPT_BYTES = 64 * 2**20
"""Longer bodies are not kept, and so not sent again; the app refuses them anyway."""


def make_middlewares() -> list[Middleware]:
    """What ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names."""
    return [Middleware(SendAgain)]


class SendAgain:
    """ASGI middleware that sends a request again where the replica died which had it.

    Args:
        app: Serve's proxy.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _Body.read(receive)
        for pause_s in _PAUSES_S if body.kept else (0,):
            await asyncio.sleep(pause_s)
            answer = _Answer()
            await self._app(scope, body.again(), answer.take)
            if answer.complete or body.client_left:
                break
        if body.client_left:
            return
        if not answer.complete:
            answer = _problem(ServerNotReadyError("The replicas that had the request died."))
        elif answer.of_serve:
            answer = _problem(_MEANINGS[answer.status])
        for message in answer.messages:
            await send(message)


class _Body:
    """A request's body, which can be read more than once.

    Attributes:
        kept: Whether all of it is.
        client_left: Whether nobody waits for the answer any more.
    """

    def __init__(self, messages: list[Message], receive: Receive) -> None:
        self._messages = messages
        self._receive = receive
        self.kept = not messages[-1].get("more_body", False)
        self.client_left = False

    @classmethod
    async def read(cls, receive: Receive) -> _Body:
        messages, size = [await receive()], 0
        while messages[-1].get("more_body", False) and size <= _KEPT_BYTES:
            size += len(messages[-1].get("body", b""))
            messages.append(await receive())
        return cls(messages, receive)

    def again(self) -> Receive:
        """What reads it from its beginning, and then whatever else the client sends."""
        kept = iter(self._messages)

        async def receive() -> Message:
            message = next(kept, None) or await self._receive()
            self.client_left |= message["type"] == "http.disconnect"
            return message

        return receive


class _Answer:
    """An answer that is kept until it is complete."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Serve repeats the id that the app has given already.
            pairs = [tuple(pair) for pair in message["headers"]]
            message["headers"] = list(dict.fromkeys(pairs))
        self.messages.append(message)

    @property
    def complete(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def of_serve(self) -> bool:
        """Whether it is Serve's word, not the app's, whose every failure is a problem."""
        is_problem = (b"content-type", PROBLEM_JSON.encode()) in self.messages[0]["headers"]
        return self.status in _MEANINGS and not is_problem


def _problem(error: MaskserveError) -> _Answer:
    status = STATUS_OF[type(error)]
    problem = make_problem(
        status=status,
        code=error.code,
        title=error.title,
        detail=f"{error} Try again in a moment.",
        request_id=uuid.uuid4().hex,
    )
    body = problem.model_dump_json().encode()
    headers = {
        **SECURITY_HEADERS,
        "Content-Type": PROBLEM_JSON,
        "Content-Length": str(len(body)),
        "Retry-After": str(RETRY_AFTER_S),
    }
    answer = _Answer()
    answer.messages = [
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        },
        {"type": "http.response.body", "body": body},
    ]
    return answer
