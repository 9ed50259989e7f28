"""How long a photo spends in each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["STAGES", "Span", "Stopwatch"]

STAGES = ("decode", "queue", "infer", "paste", "draw")


@dataclass(frozen=True, slots=True)
class Span:
    """When a stage was: nanoseconds since 1970."""

    stage: str
    start_ns: int
    end_ns: int


class Stopwatch:
    """Times the stages of one photo, from its making on.

    Attributes:
        spent_ms: Milliseconds by stage, 0 where it was not reached; after :meth:`stop`, also
            ``total``.
        spans: When each stage was, in their order.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.spent_ms = dict.fromkeys(STAGES, 0.0)
        self.spans: list[Span] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        yield
        self.add(**{name: (time.perf_counter() - start) * 1e3})

    def add(self, **spent_ms: float) -> None:
        """Record stages timed elsewhere: one followed the other, and the last ends now."""
        self.spent_ms.update(spent_ms)
        start_ns = time.time_ns() - round(sum(spent_ms.values()) * 1e6)
        for name, spent in spent_ms.items():
            end_ns = start_ns + round(spent * 1e6)
            self.spans.append(Span(name, start_ns, end_ns))
            start_ns = end_ns

    def stop(self) -> dict[str, float]:
        """Milliseconds by stage, and ``total`` since the start."""
        self.spent_ms["total"] = (time.perf_counter() - self._start) * 1e3
        return self.spent_ms
