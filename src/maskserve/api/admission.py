"""How many photos may wait for a network, how many may be in one, and for how long."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from maskserve.core.errors import DeadlineError, ServerFullError

__all__ = ["Admission", "Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request's answer is worth nothing any more.

    Attributes:
        allowed_s: Seconds from the arrival of the request.
        ends_s: The end, by ``time.monotonic``.
    """

    allowed_s: float
    ends_s: float

    @classmethod
    def after(cls, allowed_s: float, *, arrived_s: float | None = None) -> Deadline:
        """The deadline of a request that arrived at ``arrived_s``; just now by default."""
        begin_s = time.monotonic() if arrived_s is None else arrived_s
        return cls(allowed_s, begin_s + allowed_s)

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self.ends_s - time.monotonic())

    def check(self, *, what: str) -> None:
        """Check that there is time left.

        Args:
            what: What happened to the photo, to tell the client.

        Raises:
            DeadlineError: There is none.
        """
        if self.left_s == 0:
            raise DeadlineError(
                f"The {self.allowed_s:g} s that a request may take have passed: {what}.",
                hint="Try again when the server is less busy.",
            )


class Admission:
    """A short bounded queue in front of the networks.

    A photo first takes a *place*, which bounds the work that is accepted, and later waits for
    its *turn* to be decoded and to run a network, which bounds the decoded photos. Beyond the
    places, refusing at once serves everybody better than a queue whose end nobody lives to see.

    *Background* photos, such as those of jobs, have places of their own, as many as there are
    turns, and wait for one instead of being refused. Their turn comes when no other photo waits.

    Args:
        concurrency: Turns that may be taken at a time.
        queue_size: Places beyond those.
        on_wait: Is told by how much the number of waiting photos changes, without those in the
            background.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        queue_size: int,
        on_wait: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._on_wait = on_wait
        self._places = concurrency + queue_size
        self._free_places = self._places
        self._background_places = threading.Semaphore(concurrency)
        self._free_turns = concurrency
        self._changed = threading.Condition()
        # Who waits for a turn, in order: is it a background photo, and when did it come?
        self._queue: list[tuple[bool, int]] = []
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """Photos that wait for their turn now, without those in the background."""
        with self._changed:
            return sum(not background for background, _ in self._queue)

    def refuse_if_full(self) -> None:
        """Refuse a request before its body is even read.

        Raises:
            ServerFullError: Every place is taken.
        """
        if self._free_places <= 0:
            raise ServerFullError(
                f"{self._places} photos are being worked on or waiting, which is all that this "
                "server takes.",
                hint="Try again in a moment.",
            )

    @contextmanager
    def place(self, *, background: bool = False) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            ServerFullError: Every place is taken; never in the background, which waits.
        """
        if background:
            with self._background_places:
                yield
            return
        with self._changed:
            self.refuse_if_full()
            self._free_places -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free_places += 1

    @contextmanager
    def turn(
        self, *, deadline: Deadline | None = None, background: bool = False
    ) -> Iterator[float]:
        """Wait for a turn and hold it while the block runs; yields the wait in milliseconds.

        Raises:
            DeadlineError: No turn came in time.
        """
        start = time.perf_counter()
        with self._changed:
            ticket = (background, next(self._numbers))
            insort(self._queue, ticket)
            self._on_wait(0 if background else +1)
            try:
                self._changed.wait_for(
                    lambda: self._free_turns > 0 and self._queue[0] == ticket,
                    timeout=deadline.left_s if deadline else None,
                )
                if deadline:
                    deadline.check(what="the photo waited and was not begun")
                self._free_turns -= 1
            finally:
                self._queue.remove(ticket)
                self._on_wait(0 if background else -1)
                self._changed.notify_all()
        try:
            yield (time.perf_counter() - start) * 1e3
        finally:
            with self._changed:
                self._free_turns += 1
                self._changed.notify_all()
