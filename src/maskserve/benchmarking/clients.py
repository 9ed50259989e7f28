"""Clients that send photos to a server, each the next one when the last is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

import numpy as np
import numpy.typing as npt

from maskserve.core.errors import EngineError

__all__ = ["Traffic", "send_photo", "send_photos"]

_PATH = "/v1/segment"


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """What clients saw.

    Attributes:
        times_ms: float64, shape (requests,): from sending a photo to the last byte of its answer.
        wall_s: From the first request to the last answer.
    """

    times_ms: npt.NDArray[np.float64]
    wall_s: float

    @property
    def per_second(self) -> float:
        return len(self.times_ms) / self.wall_s


def send_photo(connection: HTTPConnection, photo: bytes, *, accept: str) -> bytes:
    """Send a photo over a connection that stays open, and read the answer.

    Args:
        connection: To a server of ``maskserve serve``.
        photo: Content of a JPEG, PNG or WebP.
        accept: Media type of the answer: ``image/jpeg`` or ``application/json``.

    Raises:
        EngineError: The answer is not 200, or there is none.
    """
    headers = {"Content-Type": "application/octet-stream", "Accept": accept}
    try:
        connection.request("POST", _PATH, photo, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        raise EngineError(f"The server gave no answer: {error!r}") from error
    if answer.status != 200 or answer.headers.get_content_type() != accept:
        text = body[:300].decode(errors="replace")
        raise EngineError(f"The server answered {answer.status}: {text}")
    return body


def send_photos(
    connect: Callable[[], HTTPConnection],
    photos: Sequence[bytes],
    *,
    accept: str,
    clients: int,
    rounds: int,
) -> Traffic:
    """Let some clients send photos at a time.

    Each sends one photo untimed; then all begin together, each over a connection of its own.

    Args:
        connect: Opens a connection.
        photos: Contents of files, taken in turn.
        accept: Media type of the answers.
        clients: How many.
        rounds: Photos that each of them sends.

    Raises:
        EngineError: An answer is not 200.
    """
    together = threading.Barrier(clients)

    def work(number: int) -> list[tuple[float, float]]:
        connection = connect()
        spans = []
        try:
            send_photo(connection, photos[number % len(photos)], accept=accept)
            connection.close()  # servers end those that wait long; the next photo opens it again
            together.wait()
            for i in range(number, number + rounds):
                start = time.perf_counter()
                send_photo(connection, photos[i % len(photos)], accept=accept)
                spans.append((start, time.perf_counter()))
        except BaseException:
            together.abort()  # or the others would wait for this one
            raise
        finally:
            connection.close()
        return spans

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(work, number) for number in range(clients)]
    failures = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(failures, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    spans = np.array([span for future in futures for span in future.result()])
    return Traffic(
        times_ms=(spans[:, 1] - spans[:, 0]) * 1e3,
        wall_s=float(spans[:, 1].max() - spans[:, 0].min()),
    )
