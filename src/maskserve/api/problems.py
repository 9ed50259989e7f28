"""Errors as RFC 9457 ``application/problem+json``: the only place that turns one into a status."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

from flask import Response, g
from flask_openapi3.types import ResponseDict
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from maskserve.api.schemas import Problem, SegmentQuery
from maskserve.core import errors
from maskserve.core.categories import nearest_name
from maskserve.core.errors import MaskserveError, ParameterError

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["STATUS_OF", "describe_problems", "refuse_parameters", "register_problems"]

_PROBLEM_JSON = "application/problem+json"
_RETRY_AFTER_S = 1

STATUS_OF: dict[type[MaskserveError], HTTPStatus] = {
    errors.ParameterError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownClassError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownModelError: HTTPStatus.NOT_FOUND,
    errors.SettingsError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageMissingError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageDecodeError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.ImageTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.DatasetError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.BundleError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BundleMissingError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BundleCorruptError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BundleVersionError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.MissingExtraError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DownloadError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.OutputError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TrainingError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ExportError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ParityError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.EngineError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ServerNotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServerFullError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
}
"""The HTTP status of every error class; a test keeps it complete."""

_NAMES_FILES = (errors.BundleError, errors.MissingExtraError)
_TEMPORARY = (errors.ServerFullError, errors.ServerNotReadyError)
_SEE_LOG = "The server's log says more; look there for this request's id."

_log = logging.getLogger(__name__)


def describe_problems(*statuses: HTTPStatus) -> ResponseDict:
    """The OpenAPI description of answers that are problems."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": status.phrase, "content": {_PROBLEM_JSON: {"schema": schema}}}
        for status in statuses
    }


def refuse_parameters(error: ValidationError) -> NoReturn:
    """Parameters that the schema refused, all of them in one problem.

    Raises:
        ParameterError: Always; its handler makes the answer.
    """
    sentences = []
    for item in error.errors():
        if item["type"] == "none_required":
            continue  # the other half of an optional parameter, which nobody can send
        # What may follow is pydantic's name for the half that can be sent.
        key = str(item["loc"][0])
        if item["type"] == "extra_forbidden":
            nearest = nearest_name(key, SegmentQuery.model_fields)
            guess = (
                f" Did you mean “{nearest}”?"
                if nearest
                else f" Known: {', '.join(SegmentQuery.model_fields)}."
            )
            sentences.append(f"There is no parameter “{key}”.{guess}")
        else:
            what = item["msg"].replace("Input should be", "must be", 1)
            sentences.append(f"{key}: {what}, got “{item['input']}”.")
    raise ParameterError(" ".join(sentences)) from None


def register_problems(app: Flask) -> None:
    """Answer every failure of ``app`` with a problem, routing errors included."""
    app.register_error_handler(MaskserveError, _from_maskserve)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, _from_bug)


def _from_maskserve(error: MaskserveError) -> Response:
    status = STATUS_OF.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, _NAMES_FILES):
        _log.error("%s: %s", g.request_id, error, exc_info=error)
        return _problem(status=status, code=error.code, title=error.title, detail=_SEE_LOG)
    response = _problem(status=status, code=error.code, title=error.title, detail=str(error))
    if isinstance(error, _TEMPORARY):
        response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response


def _from_http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error
    response = _problem(
        status=error.code,
        code=error.name.lower().replace(" ", "_"),
        title=error.name,
        detail=error.description or error.name,
    )
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _from_bug(error: Exception) -> Response:
    _log.error("%s: unexpected error", g.request_id, exc_info=error)
    return _problem(
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        code=MaskserveError.code,
        title=MaskserveError.title,
        detail=_SEE_LOG,
    )


def _problem(*, status: int, code: str, title: str, detail: str) -> Response:
    """The one error body of this API."""
    problem = Problem(
        type=f"urn:maskserve:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        instance=f"urn:maskserve:request:{g.request_id}",
    )
    return Response(problem.model_dump_json(), status=status, mimetype=_PROBLEM_JSON)
