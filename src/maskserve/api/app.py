"""The Flask app."""

from __future__ import annotations

import logging
import re
import time
import uuid
from importlib.metadata import version

from flask import Response, g, request
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from maskserve.api import health, page, segment
from maskserve.api.photo import body_limit
from maskserve.api.problems import refuse_parameters, register_problems
from maskserve.api.schemas import Problem
from maskserve.api.services import Registry, Services, current_services
from maskserve.api.settings import ServerSettings

__all__ = ["create_app"]

_DESCRIPTION = (
    "Instance segmentation of photos, with the share of masked and unmasked pixels. "
    "Every failure is an RFC 9457 problem."
)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_SECURITY_HEADERS = {
    # Swagger UI has pictures as data: URLs in its style sheet; the page shows blob: URLs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_access_log = logging.getLogger("maskserve.access")


def create_app(settings: ServerSettings, registry: Registry) -> OpenAPI:
    """Make the app; the registry may still be loading, and may do so in another thread."""
    app = OpenAPI(
        "maskserve.api",
        info=Info(title="maskserve", version=version("maskserve"), description=_DESCRIPTION),
        validation_error_model=Problem,
        validation_error_callback=refuse_parameters,
    )
    app.extensions["maskserve"] = Services(settings, registry)
    app.config["MAX_CONTENT_LENGTH"] = body_limit(settings.max_bytes)
    app.config["MAX_FORM_MEMORY_SIZE"] = None  # the limit above is enough
    # flask-openapi3 has Swagger UI's page at /openapi/swagger and a list of such pages, of this
    # one, at /openapi/. Both become a page of ours that obeys the content security policy.
    for key in ("OPENAPI_HTML_STRING", "SWAGGER_HTML_STRING"):
        app.config[key] = "{% include 'openapi.html' %}"
    app.register_api(segment.blueprint)
    app.register_api(health.blueprint)
    app.register_blueprint(page.blueprint)
    register_problems(app)
    # flask-openapi3 leaves a null there, which OpenAPI does not allow.
    del app.api_doc["components"]["securitySchemes"]
    app.before_request(_begin)
    app.after_request(_finish)
    return app


def _begin() -> None:
    g.start = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    response.headers.extend(_SECURITY_HEADERS)
    route = request.url_rule.rule if request.url_rule else "unknown"
    current_services().metrics.count_request(route=route, status=response.status_code)
    _access_log.info(
        "request",
        extra={
            "fields": {
                "request_id": g.request_id,
                "remote": request.remote_addr,
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "bytes": response.content_length,
                "ms": round((time.perf_counter() - g.start) * 1e3, 1),
            }
        },
    )
    return response
