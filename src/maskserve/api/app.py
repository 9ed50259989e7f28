"""The Flask app."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from maskserve.api import health, page, segment
from maskserve.api.access import check_key, describe_keys
from maskserve.api.browsers import guard_browsers
from maskserve.api.dialects import hugging_face, open_inference
from maskserve.api.dialects.label_studio import register_label_studio
from maskserve.api.jobs import routes as jobs
from maskserve.api.observe import observe_requests
from maskserve.api.photo import body_limit
from maskserve.api.problems import refuse_parameters, register_problems
from maskserve.api.request import Request
from maskserve.api.schemas import Problem
from maskserve.api.services import Registry, Services
from maskserve.api.settings import ServerSettings
from maskserve.api.tracing import Tracing

__all__ = ["create_app"]

_DESCRIPTION = (
    "Instance segmentation of photos, with the share of masked and unmasked pixels. "
    "Every failure is an RFC 9457 problem."
)


def create_app(
    settings: ServerSettings,
    registry: Registry,
    *,
    metrics_folder: Path | None = None,
    tracing: Tracing | None = None,
) -> OpenAPI:
    """Make the app.

    Args:
        settings: How to serve.
        registry: May still be loading, and may do so in another thread.
        metrics_folder: Where several processes serve, where they share their counts.
        tracing: Where spans go to, if anywhere.

    Raises:
        SettingsError: The API keys cannot be read, or the folder of jobs cannot be used.
    """
    app = OpenAPI(
        "maskserve.api",
        info=Info(title="maskserve", version=version("maskserve"), description=_DESCRIPTION),
        validation_error_model=Problem,
        validation_error_callback=refuse_parameters,
    )
    app.request_class = Request
    services = Services(settings, registry, metrics_folder=metrics_folder, tracing=tracing)
    app.extensions["maskserve"] = services
    if tracing:
        tracing.instrument(app)
    app.config["MAX_CONTENT_LENGTH"] = body_limit(settings.max_bytes)
    app.config["TRUSTED_HOSTS"] = settings.trusted_hosts
    app.config["MAX_FORM_MEMORY_SIZE"] = None  # the limit above is enough
    # flask-openapi3 has Swagger UI's page at /openapi/swagger and a list of such pages, of this
    # one, at /openapi/. Both become a page of ours that obeys the content security policy.
    for key in ("OPENAPI_HTML_STRING", "SWAGGER_HTML_STRING"):
        app.config[key] = "{% include 'openapi.html' %}"
    app.register_api(segment.blueprint)
    app.register_api(jobs.blueprint)
    app.register_api(health.blueprint)
    app.register_blueprint(page.blueprint)
    app.register_blueprint(open_inference.blueprint)
    app.register_blueprint(hugging_face.blueprint)
    register_label_studio(app)
    register_problems(app)
    # flask-openapi3 leaves a null there, which OpenAPI does not allow.
    del app.api_doc["components"]["securitySchemes"]
    if services.keys.required:
        describe_keys(app.api_doc)
    observe_requests(app)
    guard_browsers(app, origins=settings.cors_origins)
    app.before_request(check_key)
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=count
        )
    return app
