"""The Open Inference Protocol, version 2, which Triton, KServe and their clients speak.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import numpy as np
from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import NotFound

import maskserve
from maskserve.api.dialects.bodies import decode_base64, parse_json, read_body
from maskserve.api.dialects.failures import answer_with_error
from maskserve.api.dialects.tensors import InputTensor, OutputTensor, split_binary
from maskserve.api.services import current_services
from maskserve.api.work import Segmented, class_names, segmented
from maskserve.core.errors import (
    ImageMissingError,
    ImageTooLargeError,
    ParameterError,
    ServerNotReadyError,
    UnknownModelError,
)
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.image_io import ImageLimits

__all__ = ["blueprint"]

_HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_DIGITS = 20
_INPUT = {"name": "image", "datatype": "BYTES", "shape": [1]}
_INPUT_FORMS = (
    "Send “image” as BYTES of shape [1], an encoded photo, "
    "or as UINT8 of shape [H, W, 3] or [1, H, W, 3], RGB."
)


def _coverage_px(instances: Instances) -> Any:
    coverage = instances.coverage()
    return np.array([coverage.masked_px, coverage.unmasked_px, coverage.total_px], dtype=np.int64)


_OUTPUTS: dict[str, tuple[str, list[int], Callable[[Instances], Any]]] = {
    "boxes_xyxy": ("FP32", [-1, 4], lambda found: found.boxes_xyxy),
    "scores": ("FP32", [-1], lambda found: found.scores),
    "class_indices": ("INT64", [-1], lambda found: found.class_indices),
    "class_names": (
        "BYTES",
        [-1],
        lambda found: [found.class_names[i] for i in found.class_indices],
    ),
    "masks_rle": ("BYTES", [-1], lambda found: [json.dumps(rle) for rle in found.rles()]),
    "coverage": ("INT64", [3], _coverage_px),
    "masks": ("UINT8", [-1, -1, -1], lambda found: found.masks.view(np.uint8)),
}
"""Datatype and shape of each output, and how to get it; -1 is a size that depends on the photo."""

_DEFAULT_OUTPUTS = tuple(name for name in _OUTPUTS if name != "masks")

blueprint = Blueprint("open_inference", __name__, url_prefix="/v2")
answer_with_error(blueprint)


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    max_instances: Annotated[int, Field(ge=1)] | None = None
    classes: str | None = None
    """Names, separated by commas."""
    binary_data_output: bool = False


class _OutputParameters(BaseModel):
    binary_data: bool | None = None


class _RequestedOutput(BaseModel):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _InferRequest(BaseModel):
    id: str | None = None
    parameters: _Parameters = _Parameters()
    inputs: list[InputTensor]
    outputs: list[_RequestedOutput] = []


@blueprint.get("")
def server_metadata() -> Response:
    return jsonify(
        name="maskserve", version=maskserve.__version__, extensions=["binary_tensor_data"]
    )


@blueprint.get("/health/live")
def server_live() -> Response:
    return jsonify(live=True)


@blueprint.get("/health/ready")
def server_ready() -> Response:
    services = current_services()
    if services.draining.is_set():
        raise ServerNotReadyError("The server is stopping.")
    services.require_models()
    return jsonify(ready=True)


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def model_metadata(name: str, version: str | None = None) -> Response:
    manifest = _find_model(name, version)
    return jsonify(
        name=manifest.name,
        versions=[manifest.version],
        platform="maskserve_onnx",
        inputs=[_INPUT],
        outputs=[
            {"name": output, "datatype": datatype, "shape": shape}
            for output, (datatype, shape, _) in _OUTPUTS.items()
        ],
    )


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    return jsonify(name=_find_model(name, version).name, ready=True)


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    services = current_services()
    services.admission.refuse_if_full()
    body = read_body(request)
    manifest = _find_model(name, version)
    header_length = _header_length(len(body))
    asked = parse_json(_InferRequest, body[:header_length], admission=services.admission)
    is_binary = _requested(asked)
    parameters = asked.parameters
    with segmented(
        services,
        lambda: _photo(asked.inputs, memoryview(body)[header_length:], limits=services.limits),
        model=manifest.name,
        min_score=parameters.min_score,
        classes=class_names(parameters.classes),
        max_instances=parameters.max_instances,
    ) as work:
        if "masks" in is_binary:
            _check_masks(work, max_values=services.limits.max_pixels)
        outputs = [_output(output, work.instances) for output in is_binary]
    return _to_response(asked.id, manifest, outputs, is_binary=is_binary)


@blueprint.route("/<path:_>", methods=["GET", "POST"])
def unknown_route(_: str) -> NoReturn:
    """Other extensions of the protocol, so that their absence is told in its own form."""
    raise NotFound("There is no such address in the part of the protocol that is spoken here.")


def _find_model(name: str, version: str | None) -> Manifest:
    manifest = current_services().registry.get(name).manifest
    if version not in (None, manifest.version):
        raise UnknownModelError(
            f"Model “{name}” has no version “{version}” here.", hint=f"It is {manifest.version}."
        )
    return manifest


def _header_length(body_length: int) -> int:
    """Bytes of the JSON, behind which binary tensors follow; all of the body by default."""
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return body_length
    # Python refuses to convert thousands of digits, with an exception.
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    if not is_number or int(text) > body_length:
        raise ParameterError(
            f"{_HEADER_LENGTH} must be the number of bytes of the JSON, at most the "
            f"{body_length} of the body."
        )
    return int(text)


def _requested(asked: _InferRequest) -> dict[str, bool]:
    """The outputs that are asked for, and whether each is to be binary."""
    default = asked.parameters.binary_data_output
    if not asked.outputs:
        return dict.fromkeys(_DEFAULT_OUTPUTS, default)
    for output in asked.outputs:
        if output.name not in _OUTPUTS:
            raise ParameterError(
                f"There is no output “{output.name}”.", hint=f"Known: {', '.join(_OUTPUTS)}."
            )
    is_binary = {
        output.name: default
        if output.parameters.binary_data is None
        else output.parameters.binary_data
        for output in asked.outputs
    }
    if is_binary.get("masks") is False:
        raise ParameterError(
            "The output “masks” is given as binary data only.",
            hint="Ask for it with the parameter binary_data, or for masks_rle.",
        )
    return is_binary


def _photo(inputs: list[InputTensor], binary: memoryview, *, limits: ImageLimits) -> bytes | Image:
    """The encoded photo, or its pixels."""
    if [tensor.name for tensor in inputs] != ["image"]:
        raise ImageMissingError("There must be one input, “image”.", hint=_INPUT_FORMS)
    (tensor,), (raw,) = inputs, split_binary(inputs, binary)
    if raw is None and tensor.data is None:
        raise ImageMissingError("The input “image” has no data.", hint=_INPUT_FORMS)
    match tensor.datatype, tensor.shape:
        case "BYTES", [1] | [1, 1]:
            return _encoded_photo(tensor, raw)
        case "UINT8", [height, width, 3] | [1, height, width, 3]:
            return _pixels(tensor, raw, (height, width), limits=limits)
    raise ParameterError(
        f"“image” cannot be {tensor.datatype} of shape {tensor.shape}.", hint=_INPUT_FORMS
    )


def _encoded_photo(tensor: InputTensor, raw: memoryview | None) -> bytes:
    if raw is None:
        data = tensor.data
        text = data[0] if isinstance(data, list) and len(data) == 1 else data
        if not isinstance(text, str):
            raise ParameterError(
                "“image” as BYTES in JSON must be a list of one text, the photo in base64."
            )
        return decode_base64(text, what="“image”")
    if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != len(raw) - 4:
        raise ParameterError(
            "“image” as BYTES must be the photo's length in 4 bytes, little-endian, and the photo."
        )
    return bytes(raw[4:])


def _pixels(
    tensor: InputTensor, raw: memoryview | None, size: tuple[int, int], *, limits: ImageLimits
) -> Image:
    """The photo itself; what is too large is refused before an array is made of it."""
    height, width = size
    count = height * width * 3
    if not count:
        raise ParameterError("“image” has no pixels.")
    if height * width > limits.max_pixels or count > limits.max_bytes:
        raise ImageTooLargeError(
            f"“image” has {width} x {height} pixels, which are {count:,} bytes; at most "
            f"{limits.max_pixels:,} pixels and {limits.max_bytes:,} bytes are accepted.",
            hint="Scale it down, or send it as BYTES, a JPEG.",
        )
    if raw is None:
        try:
            values = np.array(tensor.data).ravel()
        except ValueError:  # lists of different lengths
            values = np.empty(0)
        if values.dtype.kind not in "iu" or np.any((values < 0) | (values > 255)):
            raise ParameterError("“image” as UINT8 must be whole numbers in 0..255.")
    else:
        values = np.frombuffer(raw, dtype=np.uint8)
    if len(values) != count:
        raise ParameterError(
            f"“image” of shape {tensor.shape} must have {count} values, but has {len(values)}."
        )
    return values.astype(np.uint8, copy=False).reshape(height, width, 3)


def _check_masks(work: Segmented, *, max_values: int) -> None:
    height, width = work.instances.image_size
    values = len(work.instances) * height * width
    if values > max_values:
        raise ImageTooLargeError(
            f"“masks” would be {len(work.instances)} x {height} x {width} = {values:,} values; "
            f"at most {max_values:,} are given.",
            hint="Ask for masks_rle, or for fewer instances with max_instances.",
        )


def _output(name: str, instances: Instances) -> OutputTensor:
    datatype, _, values_of = _OUTPUTS[name]
    return OutputTensor(name, datatype, values_of(instances))


def _to_response(
    request_id: str | None,
    manifest: Manifest,
    outputs: list[OutputTensor],
    *,
    is_binary: dict[str, bool],
) -> Response:
    binary = b""
    entries = []
    for output in outputs:
        entry: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if is_binary[output.name]:
            data = output.to_bytes()
            binary += data
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            entry["data"] = output.flat()
        entries.append(entry)
    answer = {"model_name": manifest.name, "model_version": manifest.version, "outputs": entries}
    if request_id is not None:
        answer["id"] = request_id
    header = json.dumps(answer).encode()
    if not any(is_binary.values()):
        return Response(header, mimetype="application/json")
    response = Response(header + binary, mimetype="application/octet-stream")
    response.headers[_HEADER_LENGTH] = str(len(header))
    return response
