"""How the readers say that one entry of a data set cannot be used."""

from __future__ import annotations

__all__ = ["FlawError"]


class FlawError(Exception):
    """Why one photo, region or annotation cannot be used: a phrase that begins with a verb.

    Never leaves this package. The reader that knows the entry's place catches it, makes a
    :class:`maskserve.core.errors.DatasetProblem` of it and goes on with the next entry.
    """
