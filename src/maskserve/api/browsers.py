"""What browsers are told and refused: security headers, and requests from other sites' pages."""

from __future__ import annotations

import re

from flask import Flask, Response, request
from flask_cors import CORS
from werkzeug.exceptions import Forbidden

from maskserve.api.services import current_services

__all__ = ["SECURITY_HEADERS", "guard_browsers"]

SECURITY_HEADERS = {
    # Swagger UI has pictures as data: URLs in its style sheet; the page shows blob: URLs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""They go with every answer, whatever it is."""

_SENT = ["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "traceparent", "tracestate"]
_READ = [
    "Retry-After",
    "X-Instance-Count",
    "X-Masked-Percent",
    "X-Request-Id",
    "X-Unmasked-Percent",
]
_PREFLIGHT_S = 600


def guard_browsers(app: Flask, *, origins: tuple[str, ...]) -> None:
    """Let pages of ``origins``, such as ``https://example.org``, use ``app``, and no other page.

    Without origins there is not a single CORS header.
    """
    app.before_request(_refuse_other_sites)
    app.after_request(_add_headers)
    if origins:
        CORS(
            app,
            # As patterns, so that a whole origin must be equal to one of them.
            origins=[re.compile(rf"{re.escape(origin)}\Z") for origin in origins],
            allow_headers=_SENT,
            expose_headers=_READ,
            max_age=_PREFLIGHT_S,
        )


def _refuse_other_sites() -> None:
    """A page may send a form to any server that its reader can reach, also to 127.0.0.1.

    It cannot read the answer, but the server would have worked. Browsers say where such a
    request comes from: https://www.w3.org/TR/fetch-metadata/
    """
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    if request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return
    origin = request.headers.get("Origin", "")
    if origin not in current_services().settings.cors_origins:
        raise Forbidden(
            f"A page of “{origin}” may not use this server. The operator can allow it in the "
            "setting cors_origins."
        )


def _add_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response
