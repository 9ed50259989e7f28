"""Bodies of requests, read within the limits and told about in words."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from maskserve.api.admission import Admission
from maskserve.core.errors import ImageTooLargeError, ImageTypeError, ParameterError

__all__ = ["decode_base64", "parse_json", "read_body"]

Body = TypeVar("Body", bound=BaseModel)


def read_body(request: Request) -> bytes:
    """The body as it came.

    Raises:
        ImageTooLargeError: It is larger than any photo that is accepted.
        ImageTypeError: It is compressed, so that nobody knows how large it becomes.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise ImageTypeError(
            "A compressed body cannot be read.", hint="Send it without Content-Encoding."
        )
    try:
        return request.get_data()
    except RequestEntityTooLarge:
        raise ImageTooLargeError(
            f"The request has more than {request.max_content_length} bytes.",
            hint="Scale the photo down, or send it as JPEG.",
        ) from None


def parse_json(kind: type[Body], data: bytes, *, admission: Admission) -> Body:
    """Parse JSON of a known form.

    It takes a place of the queue meanwhile, since JSON can grow many times larger in memory.

    Raises:
        ParameterError: It is not JSON, or of another form; says where.
        ServerFullError: Every place is taken.
    """
    with admission.place():
        try:
            return kind.model_validate(json.loads(data))
        except ValidationError as error:
            raise _to_parameter_error(error) from None
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"The body is not JSON: {error}.") from None


def decode_base64(text: str, *, what: str) -> bytes:
    """The bytes that a text stands for.

    Raises:
        ParameterError: It is not base64; names it as ``what``.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ParameterError(f"{what} is not base64.") from None


def _to_parameter_error(error: ValidationError) -> ParameterError:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or "The body"
    if first["type"] == "extra_forbidden":
        return ParameterError(f"There is no parameter “{place}”.")
    return ParameterError(f"{place}: {first['msg'].replace('Input should be', 'must be', 1)}.")
