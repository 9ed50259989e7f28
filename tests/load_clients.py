"""Clients that press a server from threads, and remember every answer that they got or did not."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException

import numpy as np

from maskserve.benchmarking.server import ServerProcess

PATH = "/v1/segment"
IMPATIENT_S = 0.1
"""Pause after a refusal; much less than the second that ``Retry-After`` asks for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one photo.

    Attributes:
        request_id: That the client chose.
        status: 0 if the connection broke before the whole answer was there.
        code: Of a problem, or of the exception.
        sent_s: When it was sent, by ``time.monotonic``.
        took_s: Until the last byte of the answer.
        retry_after: The header.
    """

    request_id: str
    status: int
    code: str
    sent_s: float
    took_s: float
    retry_after: str | None = None

    @property
    def refused_connection(self) -> bool:
        """Nobody listened, so nothing was accepted."""
        return self.code == "ConnectionRefusedError"


class Client:
    """Sends one photo after another.

    Args:
        server: To which.
        name: Begins the ids of its requests.
        keep_alive: Send them all over one connection, as far as the server allows it.
        accept: Media type of the answers.
    """

    def __init__(
        self,
        server: ServerProcess,
        name: str,
        *,
        keep_alive: bool = True,
        accept: str = "application/json",
    ) -> None:
        self._connection = server.connect()
        self._name = name
        self._keep_alive = keep_alive
        self._accept = accept
        self._sent = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, photo: bytes) -> Answer:
        self._sent += 1
        request_id = f"{self._name}-{self._sent}"
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept": self._accept,
            "X-Request-Id": request_id,
            "Connection": "keep-alive" if self._keep_alive else "close",
        }
        sent_s = time.monotonic()
        try:
            self._connection.request("POST", f"{PATH}?masks=none", photo, headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            took_s = time.monotonic() - sent_s
            return Answer(request_id, 0, type(error).__name__, sent_s, took_s)
        return Answer(
            request_id,
            response.status,
            "" if response.status == 200 else json.loads(body)["code"],
            sent_s,
            time.monotonic() - sent_s,
            response.headers.get("Retry-After"),
        )


class Crowd:
    """Clients that send photos for as long as the ``with`` block runs.

    Args:
        server: To which.
        photos: Taken in turn.
        clients: How many.
        keep_alive, accept: As of :class:`Client`.
        pause_s: How long each waits after a refusal before it sends its next photo.

    Attributes:
        answers: All so far.
        may_send: Cleared by whoever wants them to hold back, as a load balancer does.
    """

    def __init__(
        self,
        server: ServerProcess,
        photos: Sequence[bytes],
        *,
        clients: int,
        keep_alive: bool = True,
        accept: str = "application/json",
        pause_s: float = IMPATIENT_S,
    ) -> None:
        self.answers: list[Answer] = []
        self.may_send = threading.Event()
        self.may_send.set()
        self._stopped = threading.Event()
        self._photos = photos
        self._pause_s = pause_s
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(
                    Client(server, f"crowd-{number}", keep_alive=keep_alive, accept=accept),
                    number,
                ),
                daemon=True,
            )
            for number in range(clients)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.may_send.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, answers: int) -> None:
        """Wait for so many more answers that are 200."""
        wanted = self.count(200) + answers
        while self.count(200) < wanted:
            time.sleep(0.01)

    def count(self, status: int) -> int:
        return sum(answer.status == status for answer in list(self.answers))

    def _work(self, client: Client, number: int) -> None:
        with client:
            while True:
                self.may_send.wait()
                if self._stopped.is_set():
                    return
                answer = client.send(self._photos[number % len(self._photos)])
                self.answers.append(answer)
                number += 1
                if answer.status != 200:
                    time.sleep(self._pause_s)


def statuses(answers: Sequence[Answer]) -> dict[str, int]:
    """How many there are of each status; those without an answer by the exception."""
    names = (str(answer.status) if answer.status else answer.code for answer in answers)
    return dict(Counter(names).most_common())


def percentile_s(answers: Sequence[Answer], percent: float, *, status: int = 200) -> float:
    """A percentile of the times of the answers of one status."""
    times_s = [answer.took_s for answer in answers if answer.status == status]
    return round(float(np.percentile(times_s, percent)), 3)
