"""The table of statuses."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from maskserve.api.problems import STATUS_OF
from maskserve.core import errors
from maskserve.core.errors import MaskserveError


def every_error() -> list[type[MaskserveError]]:
    named = [getattr(errors, name) for name in errors.__all__]
    return [
        kind
        for kind in named
        if isinstance(kind, type)
        and issubclass(kind, MaskserveError)
        and kind is not MaskserveError
    ]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_status(kind: type[MaskserveError]) -> None:
    assert STATUS_OF[kind] >= HTTPStatus.BAD_REQUEST


def test_table_has_nothing_else() -> None:
    assert set(STATUS_OF) == set(every_error())


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.ParameterError, 422),
        (errors.ImageDecodeError, 422),
        (errors.ImageTypeError, 415),
        (errors.ImageTooLargeError, 413),
        (errors.ServerFullError, 503),
        (errors.DeadlineError, 504),
    ],
)
def test_statuses_of_the_design(kind: type[MaskserveError], status: int) -> None:
    assert STATUS_OF[kind] == status
