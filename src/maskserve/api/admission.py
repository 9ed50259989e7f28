"""How many photos may wait for a network, and how many may be in one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from maskserve.core.errors import DeadlineError, ServerFullError

__all__ = ["Admission"]


class Admission:
    """A short bounded queue in front of the networks.

    A request first takes a *place*, which bounds the decoded photos in memory, and later waits
    for its *turn* to run a network. Beyond the places, refusing at once serves everybody
    better than a queue whose end nobody lives to see.

    Args:
        concurrency: Turns that may be taken at a time.
        queue_size: Places beyond those.
        deadline_s: How long a request waits for its turn.
    """

    def __init__(self, *, concurrency: int, queue_size: int, deadline_s: float) -> None:
        self._places = threading.Semaphore(concurrency + queue_size)
        self._turns = threading.Semaphore(concurrency)
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn now."""
        return self._waiting

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            ServerFullError: Every place is taken.
        """
        if not self._places.acquire(blocking=False):
            raise ServerFullError(
                "More photos are waiting than this server takes.", hint="Try again in a moment."
            )
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Wait for a turn and hold it while the block runs; yields the wait in milliseconds.

        Raises:
            DeadlineError: No turn came in time.
        """
        start = time.perf_counter()
        self._count(+1)
        try:
            taken = self._turns.acquire(timeout=self._deadline_s)
        finally:
            self._count(-1)
        if not taken:
            raise DeadlineError(
                f"The photo waited for {self._deadline_s:g} s and was not begun.",
                hint="Try again when the server is less busy.",
            )
        try:
            yield (time.perf_counter() - start) * 1e3
        finally:
            self._turns.release()

    def _count(self, change: int) -> None:
        with self._lock:
            self._waiting += change
