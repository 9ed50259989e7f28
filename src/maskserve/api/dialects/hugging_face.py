"""The form of Hugging Face's task image-segmentation, for ``huggingface_hub.InferenceClient``.

A photo comes as the body, or as JSON ``{"inputs": "<base64>", "parameters": {…}}``. The answer is
a list of ``{"label", "score", "mask"}``, whose masks are PNGs of the photo's size in base64.
https://huggingface.co/docs/inference-providers/tasks/image-segmentation
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from maskserve.api.dialects.bodies import decode_base64, parse_json, read_body
from maskserve.api.dialects.failures import answer_with_error
from maskserve.api.services import current_services
from maskserve.api.work import segmented
from maskserve.core.errors import ParameterError
from maskserve.core.masks import union
from maskserve.core.types import Instances
from maskserve.runtime.image_io import encode_mask_png

__all__ = ["blueprint"]

Share = Annotated[float, Field(ge=0, le=1)]

blueprint = Blueprint("hugging_face", __name__, url_prefix="/hf")
answer_with_error(blueprint)


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    threshold: Share | None = None
    """Leave out what scores lower; by default the model's own threshold."""
    mask_threshold: Share | None = None
    """Masks are cut at the model's own threshold; another one is refused."""
    overlap_mask_area_threshold: Share | None = None
    """Without meaning here, where instances keep their whole masks and may overlap."""
    subtask: Literal["instance"] | None = None


class _Input(BaseModel):
    inputs: str
    parameters: _Parameters | None = None


@blueprint.post("/image-segmentation")
def segment() -> Response:
    return _segment(current_services().registry.names[0])


@blueprint.post("/models/<name>")
def segment_with(name: str) -> Response:
    return _segment(name)


def _segment(model: str) -> Response:
    services = current_services()
    services.admission.refuse_if_full()
    body = read_body(request)
    photo: bytes | Callable[[], bytes] = body
    parameters = _Parameters()
    if request.mimetype == "application/json":
        given = parse_json(_Input, body, admission=services.admission)
        photo = partial(decode_base64, given.inputs, what="inputs")
        parameters = given.parameters or parameters
    cut = services.registry.get(model).manifest.postprocess.mask_threshold
    if parameters.mask_threshold not in (None, cut):
        raise ParameterError(
            f"mask_threshold must be {cut:g}, at which this model's masks are cut.",
            hint="Leave it out.",
        )
    with segmented(services, photo, model=model, min_score=parameters.threshold) as work:
        return jsonify(_segments(work.instances))


def _segments(instances: Instances) -> list[dict[str, Any]]:
    return [
        {
            "label": instances.class_names[class_index],
            "score": score,
            "mask": base64.b64encode(encode_mask_png(union([crop], instances.image_size))).decode(
                "ascii"
            ),
        }
        for class_index, score, crop in zip(
            instances.class_indices.tolist(),
            instances.scores.tolist(),
            instances.crops,
            strict=True,
        )
    ]
