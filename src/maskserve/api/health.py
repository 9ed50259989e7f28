"""The routes that machines watch: liveness, readiness and metrics."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from prometheus_client import CONTENT_TYPE_LATEST

from maskserve.api.problems import ALWAYS_POSSIBLE, describe_problems
from maskserve.api.schemas import ReadinessBody, StatusBody
from maskserve.api.services import current_services
from maskserve.core.errors import ServerNotReadyError

__all__ = ["blueprint"]

_TAG = Tag(name="Health", description="For load balancers and monitoring.")

blueprint = APIBlueprint(
    "health",
    __name__,
    abp_tags=[_TAG],
    abp_responses=describe_problems(*ALWAYS_POSSIBLE),
)


@blueprint.get(
    "/healthz",
    operation_id="healthz",
    summary="Does the process live?",
    responses={HTTPStatus.OK: StatusBody},
)
def healthz() -> Response:
    return Response(StatusBody(status="ok").model_dump_json(), mimetype="application/json")


@blueprint.get(
    "/readyz",
    operation_id="readyz",
    summary="Has every model answered a warm-up?",
    description="503 before that, when a model cannot be loaded, and while the server stops.",
    responses={
        HTTPStatus.OK: ReadinessBody,
        **describe_problems(HTTPStatus.SERVICE_UNAVAILABLE),
    },
)
def readyz() -> Response:
    services = current_services()
    if services.draining.is_set():
        raise ServerNotReadyError("The server is stopping.")
    services.require_models()
    body = ReadinessBody(status="ready", models=list(services.registry.names))
    return Response(body.model_dump_json(), mimetype="application/json")


@blueprint.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    responses={
        HTTPStatus.OK: {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def metrics() -> Response:
    return Response(current_services().metrics.to_text(), content_type=CONTENT_TYPE_LATEST)
