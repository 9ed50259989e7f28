"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["duration", "quantity"]


def quantity(count: int, noun: str) -> str:
    """Such as “1 photo” and “2 photos”."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Such as “40 s”, “12 min” and “1 h 5 min”."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
