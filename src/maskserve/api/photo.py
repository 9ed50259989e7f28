"""The photo of a request, whichever of the three ways it came."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from maskserve.core.errors import (
    ImageMissingError,
    ImageTooLargeError,
    ImageTypeError,
    ParameterError,
)

__all__ = ["REQUEST_BODY", "body_limit", "receive_photo"]

_FIELD = "image"
"""Name of the multipart field and of the JSON key."""

_FORM_PARTS = 8
_FORM_EXTRA_BYTES = 128 * 1024
"""What a form may hold: so many fields, and so much beside the photo."""

_RAW_MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte", "description": "The file in base64."}


def _object_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": {
            "type": "object",
            "properties": {_FIELD: schema},
            "required": [_FIELD],
            "additionalProperties": False,
        }
    }


REQUEST_BODY: dict[str, Any] = {
    "description": "A JPEG, PNG or WebP.",
    "required": True,
    "content": {
        **{media_type: {"schema": _BINARY} for media_type in _RAW_MEDIA_TYPES},
        "multipart/form-data": _object_of(_BINARY),
        "application/json": _object_of(_BASE64),
    },
}
"""The OpenAPI description of what :func:`receive_photo` reads."""

_WAYS = (
    "Send the file itself (Content-Type: image/jpeg), a multipart field “image”, "
    'or JSON {"image": "<base64>"}.'
)


def body_limit(max_bytes: int) -> int:
    """Bytes that a body may have so that a photo of ``max_bytes`` fits in base64."""
    return max_bytes * 4 // 3 + 4096


def receive_photo(request: Request, *, max_bytes: int) -> Callable[[], bytes]:
    """Wait for a request's body, and leave the work of unpacking the photo for later.

    Args:
        request: The current one.
        max_bytes: Of the photo.

    Returns:
        What gives the bytes of the photo, not decoded, or raises

        - ImageMissingError: The body is empty or has no such field.
        - ImageTooLargeError: The form has too many parts.
        - ParameterError: The form, the JSON or the base64 in it is damaged.

    Raises:
        ImageTooLargeError: The body is larger than any photo that is accepted.
        ImageTypeError: The content type is none of the three ways.
    """
    match request.mimetype:
        case "multipart/form-data":
            unpack, limit = _from_form, max_bytes + _FORM_EXTRA_BYTES
        case "application/json":
            unpack, limit = _from_json, body_limit(max_bytes)
        case raw if raw in _RAW_MEDIA_TYPES or not raw:
            unpack, limit = _from_body, max_bytes
        case other:
            raise ImageTypeError(f"A body of type “{other}” cannot be read.", hint=_WAYS)
    request.max_content_length = limit
    try:
        request.get_data()  # which keeps it
    except RequestEntityTooLarge:
        raise ImageTooLargeError(
            f"The request has more than {limit / 2**20:.1f} MiB.",
            hint="Scale the photo down, or save it as JPEG.",
        ) from None
    return partial(unpack, request)


def _from_body(request: Request) -> bytes:
    return _not_empty(request.get_data())


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise ImageMissingError("The body is empty.", hint=_WAYS)
    return data


def _from_form(request: Request) -> bytes:
    request.max_form_parts = _FORM_PARTS
    try:
        file = request.files.get(_FIELD)
    except RequestEntityTooLarge:
        raise ImageTooLargeError(
            f"The form has more than {_FORM_PARTS} parts.",
            hint=f"Send the photo alone, in the field “{_FIELD}”.",
        ) from None
    if file is not None:
        if unknown := sorted({*request.files, *request.form} - {_FIELD}):
            raise ParameterError(
                f"The form has an unknown field “{unknown[0]}”.",
                hint="Options such as min_score go into the URL: ?min_score=0.5",
            )
        data: bytes = file.read()
        return data
    if _FIELD in request.form:
        raise ImageMissingError(
            f"The field “{_FIELD}” is a text, not a file.", hint="With curl: -F image=@photo.jpg"
        )
    found = ", ".join(f"“{name}”" for name in (*request.files, *request.form)) or "none"
    raise ImageMissingError(
        f"There is no multipart field “{_FIELD}”; found: {found}.",
        hint="With curl: -F image=@photo.jpg",
    )


def _from_json(request: Request) -> bytes:
    body = _not_empty(request.get_data())
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"The body is not JSON: {error}.", hint=_WAYS) from None
    if not isinstance(values, dict) or _FIELD not in values:
        raise ImageMissingError(f"The JSON has no key “{_FIELD}”.", hint=_WAYS)
    if unknown := sorted(values.keys() - {_FIELD}):
        raise ParameterError(
            f"The JSON has an unknown key “{unknown[0]}”.",
            hint="Options such as min_score go into the URL: ?min_score=0.5",
        )
    text = values[_FIELD]
    if not isinstance(text, str):
        raise ParameterError(f"“{_FIELD}” in the JSON is not a text.", hint=_WAYS)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        hint = "Leave “data:…;base64,” away." if text.startswith("data:") else None
        raise ParameterError(f"“{_FIELD}” in the JSON is not base64.", hint=hint) from None
