"""The photo of a request, whichever of the three ways it came."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from maskserve.core.errors import (
    ImageMissingError,
    ImageTooLargeError,
    ImageTypeError,
    ParameterError,
)

__all__ = ["REQUEST_BODY", "body_limit", "read_photo"]

_FIELD = "image"
"""Name of the multipart field and of the JSON key."""

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
"""The OpenAPI description of what :func:`read_photo` reads."""

_WAYS = (
    "Send the file itself (Content-Type: image/jpeg), a multipart field “image”, "
    'or JSON {"image": "<base64>"}.'
)


def body_limit(max_bytes: int) -> int:
    """Bytes that a body may have so that a photo of ``max_bytes`` fits in base64."""
    return max_bytes * 4 // 3 + 4096


def read_photo(request: Request) -> bytes:
    """The bytes of the photo in a request, not decoded.

    Raises:
        ImageMissingError: The body is empty or has no such field.
        ImageTooLargeError: The body is larger than any photo that is accepted.
        ImageTypeError: The content type is none of the three ways.
        ParameterError: The JSON or the base64 in it is damaged.
    """
    try:
        if request.mimetype == "multipart/form-data":
            return _from_form(request)
        if request.mimetype == "application/json":
            return _from_json(request.get_data())
        if request.mimetype in _RAW_MEDIA_TYPES or not request.mimetype:
            return _not_empty(request.get_data())
    except RequestEntityTooLarge:
        raise ImageTooLargeError(
            f"The request has more than {request.max_content_length} bytes.",
            hint="Scale the photo down, or save it as JPEG.",
        ) from None
    raise ImageTypeError(f"A body of type “{request.mimetype}” cannot be read.", hint=_WAYS)


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise ImageMissingError("The body is empty.", hint=_WAYS)
    return data


def _from_form(request: Request) -> bytes:
    file = request.files.get(_FIELD)
    if file is not None:
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


def _from_json(body: bytes) -> bytes:
    _not_empty(body)
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
