"""Errors as RFC 9457 ``application/problem+json``: the only place that turns one into a status."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

from flask import Response, g, request
from flask_openapi3.types import ResponseDict
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from maskserve.api.jobs.schemas import JobQuery, ResultsQuery
from maskserve.api.observe import note
from maskserve.api.schemas import Problem, SegmentQuery
from maskserve.core import errors
from maskserve.core.categories import nearest_name
from maskserve.core.errors import MaskserveError, ParameterError

if TYPE_CHECKING:
    from flask import Flask

__all__ = [
    "ALWAYS_POSSIBLE",
    "PROBLEM_JSON",
    "RETRY_AFTER_S",
    "SEE_LOG",
    "STATUS_OF",
    "describe_problems",
    "make_problem",
    "problem_body",
    "problem_of",
    "refuse_parameters",
    "refuse_repeated",
    "register_problems",
]

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 1

ALWAYS_POSSIBLE = (
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)
"""Statuses of problems that every route may answer with."""

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
    errors.ServerUnreachableError: HTTPStatus.BAD_GATEWAY,
    errors.ServerNotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServerFullError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
    errors.JobError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.JobsOffError: HTTPStatus.NOT_FOUND,
    errors.UnknownJobError: HTTPStatus.NOT_FOUND,
    errors.NoPicturesError: HTTPStatus.NOT_FOUND,
    errors.JobGoneError: HTTPStatus.GONE,
    errors.JobTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ArchiveError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.JobStoreFullError: HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The HTTP status of every error class; a test keeps it complete."""

_NAMES_FILES = (errors.BundleError, errors.MissingExtraError)
_QUERIES = {model.__name__: model for model in (SegmentQuery, JobQuery, ResultsQuery)}
_TEMPORARY = (errors.ServerFullError, errors.ServerNotReadyError)
SEE_LOG = "The server's log says more; look there for this request's id."

_log = logging.getLogger(__name__)


def describe_problems(*statuses: HTTPStatus) -> ResponseDict:
    """The OpenAPI description of answers that are problems."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": status.phrase, "content": {PROBLEM_JSON: {"schema": schema}}}
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
            known = _QUERIES.get(error.title, SegmentQuery).model_fields
            nearest = nearest_name(key, known)
            guess = f" Did you mean “{nearest}”?" if nearest else f" Known: {', '.join(known)}."
            sentences.append(f"There is no parameter “{key}”.{guess}")
        else:
            what = item["msg"].replace("Input should be", "must be", 1)
            sentences.append(f"{key}: {what}, got “{item['input']}”.")
    raise ParameterError(" ".join(sentences)) from None


def refuse_repeated() -> None:
    """Only the first of ``?classes=a&classes=b`` would count, which nobody means.

    Raises:
        ParameterError: A parameter of the current request is given more than once.
    """
    for key, values in request.args.lists():
        if len(values) > 1:
            raise ParameterError(f"The parameter “{key}” is given {len(values)} times.")


def make_problem(*, status: int, code: str, title: str, detail: str, request_id: str) -> Problem:
    """The one error body of this API."""
    return Problem(
        type=f"urn:maskserve:problem:{code}",
        title=title,
        status=status,
        # JSON of a client may hold halves of surrogate pairs, which no answer can.
        detail=detail.encode(errors="replace").decode(),
        code=code,
        instance=f"urn:maskserve:request:{request_id}",
    )


def problem_body(error: Exception, *, request_id: str) -> Problem:
    """What the world may know of a failure, other than of HTTP; the rest goes into the log."""
    kind = error if isinstance(error, MaskserveError) else MaskserveError("unexpected error")
    status = STATUS_OF.get(type(kind), HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = str(kind)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(kind, _NAMES_FILES):
        fields = {"request_id": request_id}  # so that the line can be found by it
        _log.error("%s: %s", request_id, kind, exc_info=error, extra={"fields": fields})
        detail = SEE_LOG
    return make_problem(
        status=status, code=kind.code, title=kind.title, detail=detail, request_id=request_id
    )


def register_problems(app: Flask) -> None:
    """Answer every failure of ``app`` with a problem, routing errors included."""
    app.register_error_handler(MaskserveError, _from_maskserve)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, _from_bug)


def problem_of(error: Exception) -> Response | HTTPException:
    """The answer to any failure; what is none, such as a redirect, is given back as it is."""
    if isinstance(error, MaskserveError):
        return _from_maskserve(error)
    if isinstance(error, HTTPException):
        return _from_http(error)
    return _from_bug(error)


def _from_maskserve(error: MaskserveError) -> Response:
    response = _respond(problem_body(error, request_id=g.request_id))
    if isinstance(error, _TEMPORARY):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _from_http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error
    problem = make_problem(
        status=error.code,
        code=error.name.lower().replace(" ", "_"),
        title=error.name,
        detail=error.description or error.name,
        request_id=g.request_id,
    )
    response = _respond(problem)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _from_bug(error: Exception) -> Response:
    return _respond(problem_body(error, request_id=g.request_id))


def _respond(problem: Problem) -> Response:
    note(code=problem.code)
    return Response(problem.model_dump_json(), status=problem.status, mimetype=PROBLEM_JSON)
