"""The routes of version 1: segmenting a photo, and what models there are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import numpy as np
from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel
from werkzeug.exceptions import NotAcceptable

from maskserve.api.answers import encode_masks, model_body, segment_body
from maskserve.api.photo import REQUEST_BODY, read_photo
from maskserve.api.problems import describe_problems
from maskserve.api.schemas import (
    ModelBody,
    ModelListBody,
    ModelPath,
    SegmentBody,
    SegmentQuery,
)
from maskserve.api.services import current_services
from maskserve.core.errors import ParameterError
from maskserve.core.manifest import Manifest
from maskserve.core.types import Coverage, Instances
from maskserve.runtime.image_io import decode_image, encode_image
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
_ALWAYS = describe_problems(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.INTERNAL_SERVER_ERROR)
_REFUSALS = describe_problems(
    HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_NO_SUCH_MODEL = describe_problems(HTTPStatus.NOT_FOUND)
_NOT_READY = describe_problems(HTTPStatus.SERVICE_UNAVAILABLE)

blueprint = APIBlueprint("v1", __name__, url_prefix="/v1", abp_responses=_ALWAYS)


class _Stopwatch:
    """Milliseconds by stage of one request."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.spent_ms = dict.fromkeys(("decode", "queue", "infer", "paste", "draw"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent_ms[name] = (time.perf_counter() - start) * 1e3

    def add(self, **spent_ms: float) -> None:
        self.spent_ms.update(spent_ms)

    def stop(self) -> dict[str, float]:
        self.spent_ms["total"] = (time.perf_counter() - self._start) * 1e3
        return self.spent_ms


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
    stopwatch = _Stopwatch()
    media_type = _negotiate()
    _refuse_repeated()
    predictor = services.registry.get(model_name)
    wanted = _class_indices(query.classes, predictor.manifest)
    data = read_photo(request)
    with services.admission.place():
        with stopwatch.stage("decode"):
            image = decode_image(data, limits=services.limits)
        with services.admission.turn() as queued_ms:
            instances, times = predictor.predict_timed(image, min_score=query.min_score)
        stopwatch.add(queue=queued_ms, infer=times.infer_ms, paste=times.paste_ms)
        instances = _keep(instances, wanted, query.max_instances)
        coverage = instances.coverage()
        drawn = b""  # where nobody asks for it
        if media_type != JSON or query.include == "image":
            with stopwatch.stage("draw"):
                drawn = encode_image(
                    draw(image, instances, style=query.style),
                    JPEG if media_type == JSON else media_type,
                )
        masks = encode_masks(instances, query.masks if media_type == JSON else "none")
    stages_ms = stopwatch.stop()
    services.metrics.observe_stages(stages_ms)
    if media_type != JSON:
        return _drawn_response(drawn, media_type, coverage, count=len(instances))
    body = segment_body(
        predictor.manifest,
        instances,
        coverage,
        masks=masks,
        drawn_jpeg=drawn,
        stages_ms=stages_ms,
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


def _refuse_repeated() -> None:
    """Only the first of ``?classes=a&classes=b`` would count, which nobody means."""
    for key, values in request.args.lists():
        if len(values) > 1:
            raise ParameterError(f"The parameter “{key}” is given {len(values)} times.")


def _class_indices(classes: str | None, manifest: Manifest) -> list[int] | None:
    """What ``classes=a,b`` names; None for all.

    Raises:
        UnknownClassError: With the nearest known name.
    """
    if classes is None:
        return None
    names = [name.strip() for name in classes.split(",")]
    if not all(names):
        raise ParameterError("classes: a name is empty.", hint="Separate names by one comma.")
    return [manifest.categories.index_of(name) for name in names]


def _keep(
    instances: Instances, class_indices: list[int] | None, max_instances: int | None
) -> Instances:
    """The best ``max_instances`` of the wanted classes."""
    keep = np.ones(len(instances), dtype=np.bool_)
    if class_indices is not None:
        keep = np.isin(instances.class_indices, class_indices)
    if max_instances is not None:
        keep &= np.cumsum(keep) <= max_instances
    return instances.select(keep)


def _drawn_response(drawn: bytes, media_type: str, coverage: Coverage, *, count: int) -> Response:
    response = Response(drawn, mimetype=media_type)
    response.headers["X-Masked-Percent"] = f"{coverage.masked_percent:.4f}"
    response.headers["X-Unmasked-Percent"] = f"{coverage.unmasked_percent:.4f}"
    response.headers["X-Instance-Count"] = str(count)
    return response


def _to_json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(by_alias=True, exclude_none=True), mimetype=JSON)
