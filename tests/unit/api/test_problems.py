"""The table of statuses, and what is said of parameters."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from flask.testing import FlaskClient
from pydantic import ValidationError

from api_fakes import check_problem
from maskserve.api.problems import STATUS_OF, refuse_parameters
from maskserve.api.schemas import SegmentQuery
from maskserve.core import errors
from maskserve.core.errors import MaskserveError, ParameterError


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


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"min_score": "2"}, "min_score: must be less than or equal to 1, got “2”."),
        ({"max_instances": "0"}, "max_instances: must be greater than or equal to 1, got “0”."),
        ({"masks": "foo"}, "masks: must be 'rle', 'polygon', 'png' or 'none', got “foo”."),
        (
            {"style": "foo"},
            "style: must be 'overlay', 'outline', 'splash' or 'mask', got “foo”.",
        ),
        ({"include": "foo"}, "include: must be 'image', got “foo”."),
        (
            {"min_score": "2", "max_instances": "0"},
            "min_score: must be less than or equal to 1, got “2”. "
            "max_instances: must be greater than or equal to 1, got “0”.",
        ),
        (
            {"min_scor": "0.5"},
            "There is no parameter “min_scor”. Did you mean “min_score”?",
        ),
    ],
)
def test_each_bad_parameter_gets_one_sentence(query: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SegmentQuery.model_validate(query)
    with pytest.raises(ParameterError) as caught:
        refuse_parameters(refused.value)
    assert str(caught.value) == message


def test_half_a_surrogate_pair_is_told_as_a_question_mark(client: FlaskClient) -> None:
    response = client.post(
        "/v1/segment", data=rb'{"image": "", "\ud800": 1}', content_type="application/json"
    )
    check_problem(response, 422, "bad_parameter", "unknown key “?”")
