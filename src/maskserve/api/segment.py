"""The routes of version 1: segmenting a photo, and what models there are."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel
from werkzeug.exceptions import NotAcceptable

from maskserve.api.answers import encode_masks, model_body, segment_body
from maskserve.api.photo import REQUEST_BODY, receive_photo
from maskserve.api.problems import ALWAYS_POSSIBLE, describe_problems, refuse_repeated
from maskserve.api.schemas import (
    ModelBody,
    ModelListBody,
    ModelPath,
    SegmentBody,
    SegmentQuery,
)
from maskserve.api.services import current_services
from maskserve.api.work import class_names, segmented
from maskserve.core.types import Coverage
from maskserve.runtime.image_io import encode_image
from maskserve.runtime.render import draw

__all__ = ["blueprint"]

JSON = "application/json"
JPEG = "image/jpeg"
PNG = "image/png"

_SEGMENT = Tag(name="Segmentation", description="Find instances in a photo.")
_MODELS = Tag(name="Models", description="What is loaded.")

_DESCRIPTION = (
    "Send the photo as the body, as a multipart field `image`, or in JSON as base64. EXIF "
    "orientation is applied whichever way it came. The answer is JSON unless `Accept` prefers "
    "`image/png` or `image/jpeg`: then it is the drawn photo, in the upright photo's size."
)
_ALWAYS = describe_problems(*ALWAYS_POSSIBLE)
_REFUSALS = describe_problems(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_NO_SUCH_MODEL = describe_problems(HTTPStatus.NOT_FOUND)
_NOT_READY = describe_problems(HTTPStatus.SERVICE_UNAVAILABLE)

blueprint = APIBlueprint("v1", __name__, url_prefix="/v1", abp_responses=_ALWAYS)


@blueprint.get(
    "/models",
    tags=[_MODELS],
    operation_id="list_models",
    summary="List the models",
    responses={HTTPStatus.OK: ModelListBody, **_NOT_READY},
)
def list_models() -> Response:
    services = current_services()
    models = [model_body(manifest) for manifest in services.loaded()]
    if not models:
        services.require_models()
    return _to_json(ModelListBody(default=services.registry.names[0], models=models))


@blueprint.get(
    "/models/<name>",
    tags=[_MODELS],
    operation_id="describe_model",
    summary="Describe a model",
    responses={HTTPStatus.OK: ModelBody, **_NO_SUCH_MODEL, **_NOT_READY},
)
def describe_model(path: ModelPath) -> Response:
    return _to_json(model_body(current_services().registry.get(path.name).manifest))


@blueprint.post(
    "/segment",
    tags=[_SEGMENT],
    operation_id="segment",
    summary="Segment a photo with the default model",
    description=_DESCRIPTION,
    openapi_extensions={"requestBody": REQUEST_BODY},
    responses={HTTPStatus.OK: SegmentBody, **_REFUSALS},
)
def segment(query: SegmentQuery) -> Response:
    return _segment(current_services().registry.names[0], query)


@blueprint.post(
    "/models/<name>/segment",
    tags=[_SEGMENT],
    operation_id="segment_with",
    summary="Segment a photo with a named model",
    description=_DESCRIPTION,
    openapi_extensions={"requestBody": REQUEST_BODY},
    responses={HTTPStatus.OK: SegmentBody, **_REFUSALS, **_NO_SUCH_MODEL},
)
def segment_with(path: ModelPath, query: SegmentQuery) -> Response:
    return _segment(path.name, query)


def _segment(model_name: str, query: SegmentQuery) -> Response:
    services = current_services()
    media_type = _negotiate()
    refuse_repeated()
    services.admission.refuse_if_full()
    drawn = b""  # where nobody asks for it
    with segmented(
        services,
        receive_photo(request, max_bytes=services.limits.max_bytes),
        model=model_name,
        min_score=query.min_score,
        classes=class_names(query.classes),
        max_instances=query.max_instances,
    ) as work:
        coverage = work.instances.coverage()
        if media_type != JSON or query.include == "image":
            with work.stopwatch.stage("draw"):
                drawn = encode_image(
                    draw(work.image, work.instances, style=query.style),
                    JPEG if media_type == JSON else media_type,
                )
        masks = encode_masks(work.instances, query.masks if media_type == JSON else "none")
    if media_type != JSON:
        return _drawn_response(drawn, media_type, coverage, count=len(work.instances))
    body = segment_body(
        work.manifest,
        work.instances,
        coverage,
        masks=masks,
        drawn_jpeg=drawn,
        stages_ms=work.stopwatch.spent_ms,
        request_id=g.request_id,
    )
    return _to_json(body)


def _negotiate() -> str:
    """The media type of the answer, by the request's ``Accept``; JSON where it does not say."""
    accepted = request.accept_mimetypes
    if not accepted:
        return JSON
    best = accepted.best_match((JSON, JPEG, PNG))
    if best is None:
        raise NotAcceptable(
            f"None of “{accepted}” can be answered; there are {JSON}, {JPEG} and {PNG}."
        )
    return best


def _drawn_response(drawn: bytes, media_type: str, coverage: Coverage, *, count: int) -> Response:
    response = Response(drawn, mimetype=media_type)
    response.headers["X-Masked-Percent"] = f"{coverage.masked_percent:.4f}"
    response.headers["X-Unmasked-Percent"] = f"{coverage.unmasked_percent:.4f}"
    response.headers["X-Instance-Count"] = str(count)
    return response


def _to_json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(by_alias=True, exclude_none=True), mimetype=JSON)
