"""The Open Inference Protocol, by hand and by Triton's own client."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException
from werkzeug.test import TestResponse

from api_fakes import FakeRegistry, make_client
from maskserve.core.masks import decode_rle
from maskserve.core.predictor import Image

INFER = "/v2/models/balloon/infer"
DEFAULT = ["boxes_xyxy", "scores", "class_indices", "class_names", "masks_rle", "coverage"]


def segment(client: FlaskClient, data: bytes, query: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = client.post(
        f"/v1/segment{query}", data=data, content_type="image/png"
    ).get_json()
    return answer


def infer(
    client: FlaskClient, request: Any, binary: bytes = b"", path: str = INFER
) -> TestResponse:
    header = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))} if binary else {}
    return client.post(path, data=header + binary, headers=headers)


def as_bytes(data: bytes, **changes: Any) -> dict[str, Any]:
    """A request with an encoded photo in base64."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    text = base64.b64encode(data).decode()
    return {"inputs": [{**tensor, "data": [text]}]} | changes


def as_pixels(photo: Image, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(photo.shape)}
    return {"inputs": [{**tensor, "parameters": {"binary_data_size": photo.nbytes}}]} | changes


def check_error(response: TestResponse, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert set(response.get_json()) == {"error"}
    assert response.headers["X-Request-Id"]
    for word in words:
        assert word in response.get_json()["error"]


def tensors_of(response: TestResponse) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.get_json()["outputs"]}


# --- what there is ----------------------------------------------------------------------------


def test_metadata_of_server_and_model(client: FlaskClient) -> None:
    server = client.get("/v2").get_json()
    assert server["name"] == "maskserve"
    assert server["extensions"] == ["binary_tensor_data"]
    model = client.get("/v2/models/second/versions/1.0.0").get_json()
    assert (model["name"], model["versions"]) == ("second", ["1.0.0"])
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [1]}]
    assert [output["name"] for output in model["outputs"]] == [*DEFAULT, "masks"]


def test_health(registry: FakeRegistry) -> None:
    client = make_client(registry)
    assert client.get("/v2/health/live").get_json() == {"live": True}
    assert client.get("/v2/health/ready").get_json() == {"ready": True}
    for path in ("/v2/models/balloon/ready", "/v2/models/balloon/versions/1.0.0/ready"):
        assert client.get(path).get_json() == {"name": "balloon", "ready": True}
    registry.ready = False
    assert client.get("/v2/health/live").status_code == 200
    check_error(client.get("/v2/health/ready"), 503, "still loading")
    check_error(client.get("/v2/models/balloon/ready"), 503, "loading")
    client.application.extensions["maskserve"].draining.set()
    check_error(client.get("/v2/health/ready"), 503, "stopping")


@pytest.mark.parametrize(
    "path", ["/v2/models/none", "/v2/models/balloon/versions/9", "/v2/repository/index", "/v2/x"]
)
def test_what_is_not_there(client: FlaskClient, path: str) -> None:
    check_error(client.get(path), 404)


# --- photos in, tensors out -------------------------------------------------------------------


def test_answers_are_those_of_the_api(client: FlaskClient, png: bytes) -> None:
    expected = segment(client, png)
    response = infer(client, as_bytes(png, id="7"))
    assert response.get_json()["id"] == "7"
    assert response.get_json()["model_version"] == "1.0.0"
    tensors = tensors_of(response)
    assert list(tensors) == DEFAULT
    found = expected["instances"]
    assert tensors["boxes_xyxy"]["shape"] == [2, 4]
    boxes = np.array(tensors["boxes_xyxy"]["data"]).reshape(2, 4)
    for box, instance in zip(boxes, found, strict=True):
        left, top, width, height = instance["bbox_xywh"]
        assert box == pytest.approx([left, top, left + width, top + height], abs=0.02)
    assert tensors["scores"]["data"] == pytest.approx([i["score"] for i in found], abs=1e-4)
    assert tensors["class_indices"]["data"] == [i["class_index"] for i in found]
    assert tensors["class_names"]["data"] == [i["class"] for i in found]
    assert [json.loads(text) for text in tensors["masks_rle"]["data"]] == [i["mask"] for i in found]
    coverage = expected["coverage"]
    assert tensors["coverage"]["data"] == [
        coverage["masked_px"], coverage["unmasked_px"], coverage["total_px"]
    ]  # fmt: skip


def test_pixels_answer_like_the_encoded_photo(
    client: FlaskClient, photo: Image, png: bytes
) -> None:
    encoded = tensors_of(infer(client, as_bytes(png)))
    assert tensors_of(infer(client, as_pixels(photo), photo.tobytes())) == encoded
    assert tensors_of(infer(client, as_pixels(photo[None]), photo.tobytes())) == encoded
    nested = {"name": "image", "datatype": "UINT8", "shape": list(photo.shape)}
    for data in (photo.tolist(), photo.ravel().tolist()):
        assert tensors_of(infer(client, {"inputs": [{**nested, "data": data}]})) == encoded


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({"min_score": 0}, "?min_score=0"),
        ({"min_score": 0, "classes": "balloon"}, "?min_score=0&classes=balloon"),
        ({"max_instances": 1}, "?max_instances=1"),
        ({"min_score": 1}, "?min_score=1"),
    ],
)
def test_parameters(
    client: FlaskClient, png: bytes, parameters: dict[str, Any], query: str
) -> None:
    tensors = tensors_of(infer(client, as_bytes(png, parameters=parameters)))
    expected = segment(client, png, query)
    assert tensors["scores"]["shape"] == [len(expected["instances"])]
    assert tensors["coverage"]["data"][0] == expected["coverage"]["masked_px"]


def test_binary_outputs_and_json_ones_together(client: FlaskClient, png: bytes) -> None:
    outputs = [
        {"name": "masks", "parameters": {"binary_data": True}},
        {"name": "scores", "parameters": {"binary_data": False}},
        {"name": "class_names"},
    ]
    request = as_bytes(png, outputs=outputs, parameters={"binary_data_output": True})
    response = infer(client, request)
    length = int(response.headers["Inference-Header-Content-Length"])
    entries = json.loads(response.data[:length])["outputs"]
    masks, scores, names = entries
    assert masks["shape"] == [2, 48, 64]
    assert masks["parameters"] == {"binary_data_size": 2 * 48 * 64}
    assert len(scores["data"]) == 2
    rest = response.data[length:]
    dense = np.frombuffer(rest[: 2 * 48 * 64], np.uint8).reshape(2, 48, 64)
    rles = [instance["mask"] for instance in segment(client, png)["instances"]]
    assert np.array_equal(dense, [decode_rle(rle) for rle in rles])
    assert rest[2 * 48 * 64 :] == b"\7\0\0\0balloon\4\0\0\0kite"
    assert names["parameters"] == {"binary_data_size": 19}


def test_dense_masks_are_bounded(registry: FakeRegistry, png: bytes) -> None:
    outputs = [{"name": "masks", "parameters": {"binary_data": True}}]
    with make_client(registry, max_pixels=48 * 64 * 2 - 1) as client:
        check_error(infer(client, as_bytes(png, outputs=outputs)), 413, "masks_rle")
        one = as_bytes(png, outputs=outputs, parameters={"max_instances": 1})
        assert infer(client, one).status_code == 200


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"min_scor": 1}}, ["parameters.min_scor"]),
        ({"parameters": {"min_score": 2}}, ["parameters.min_score", "less than or equal to 1"]),
        ({"parameters": {"classes": "ballon"}}, ["ballon", "balloon"]),
        ({"outputs": [{"name": "mask"}]}, ["There is no output “mask”", "masks_rle"]),
        ({"outputs": [{"name": "masks"}]}, ["binary data only"]),
        ({"inputs": []}, ["one input, “image”"]),
        ({"inputs": "x"}, ["inputs: must be a valid list"]),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}, ["has no data"]),
    ],
)
def test_bad_requests_are_told(
    client: FlaskClient, png: bytes, changes: dict[str, Any], words: list[str]
) -> None:
    check_error(infer(client, as_bytes(png) | changes), 422, *words)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"datatype": "FP32"}, ["cannot be FP32", "UINT8"]),
        ({"shape": [2]}, ["of shape [2]"]),
        ({"shape": [-1]}, ["shape.0"]),
        ({"data": ["%"]}, ["not base64"]),
        ({"data": [1]}, ["one text, the photo in base64"]),
        ({"data": ["AAAA"]}, ["not an image"]),
        ({"datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2]}, ["3 values, but has 2"]),
        ({"datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 256]}, ["0..255"]),
        ({"datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 0.5]}, ["0..255"]),
        ({"datatype": "UINT8", "shape": [1, 1, 3], "data": [[1, 2], [3]]}, ["0..255"]),
        ({"datatype": "UINT8", "shape": [1, 1, 3], "data": {"a": 1}}, ["0..255"]),
        ({"datatype": "UINT8", "shape": [0, 1, 3], "data": []}, ["no pixels"]),
        ({"datatype": "UINT8", "shape": [1, 1, 4], "data": [1] * 4}, ["of shape [1, 1, 4]"]),
    ],
)
def test_bad_inputs_are_told(
    client: FlaskClient, png: bytes, tensor: dict[str, Any], words: list[str]
) -> None:
    request = as_bytes(png)
    request["inputs"][0] |= tensor
    check_error(infer(client, request), 422, *words)


@pytest.mark.parametrize(
    ("size", "binary", "words"),
    [
        (9, b"", ["binary_data_size 9, but 0 bytes follow"]),
        (9, b"123456789x", ["1 bytes behind the JSON belong to no input"]),
        (9, struct.pack("<I", 99) + b"12345", ["the photo's length in 4 bytes"]),
        (2, b"12", ["the photo's length in 4 bytes"]),
    ],
)
def test_bad_binary_data_is_told(
    client: FlaskClient, size: int, binary: bytes, words: list[str]
) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    request = {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}
    check_error(infer(client, request, binary), 422, *words)


@pytest.mark.parametrize("length", ["x", "-1", "99999", "9" * 5000, "²"])
def test_bad_header_length(client: FlaskClient, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode().decode("latin-1")}
    check_error(client.post(INFER, data=b"{}", headers=headers), 422, "number of bytes")


def test_compressed_body_is_refused(client: FlaskClient) -> None:
    response = client.post(INFER, data=b"x", headers={"Content-Encoding": "gzip"})
    check_error(response, 415, "compressed")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_body_that_is_no_request(client: FlaskClient, body: bytes) -> None:
    check_error(client.post(INFER, data=body), 422)


@pytest.mark.parametrize("shape", [[10**6, 10**6, 3], [2000, 1000, 3], [1, 300, 300, 3]])
def test_large_pixels_are_refused_by_their_shape(client: FlaskClient, shape: list[int]) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": [1]}
    check_error(infer(client, {"inputs": [tensor]}), 413, "pixels")


def test_large_body_is_refused(client: FlaskClient) -> None:
    check_error(client.post(INFER, data=b"x" * 300_000), 413, "bytes")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2**40) | st.text(max_size=5) | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "shape", "data", "datatype", "parameters", "binary_data_size"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.binary(max_size=20),
)
def test_anything_else_is_refused_in_our_own_words(
    client: FlaskClient, png: bytes, junk: Any, binary: bytes
) -> None:
    for request in (as_bytes(png, inputs=[junk]), as_bytes(png, outputs=junk), {"inputs": junk}):
        assert infer(client, request, binary).status_code in (200, 413, 422)


# --- Triton's client --------------------------------------------------------------------------


@pytest.fixture
def client_of_triton(serve: Callable[..., str]) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(serve()) as client:
        yield client


def triton_input(data: bytes) -> triton.InferInput:
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], dtype=np.object_))
    return tensor


def test_triton_client_asks_what_there_is(client_of_triton: triton.InferenceServerClient) -> None:
    assert client_of_triton.is_server_live()
    assert client_of_triton.is_server_ready()
    assert client_of_triton.is_model_ready("second", "1.0.0")
    assert not client_of_triton.is_model_ready("third")
    assert client_of_triton.get_server_metadata()["name"] == "maskserve"
    outputs = client_of_triton.get_model_metadata("balloon")["outputs"]
    assert {"name": "boxes_xyxy", "datatype": "FP32", "shape": [-1, 4]} in outputs


def test_triton_client_infers(
    client_of_triton: triton.InferenceServerClient, client: FlaskClient, photo: Image, png: bytes
) -> None:
    result = client_of_triton.infer("balloon", [triton_input(png)], request_id="x")
    found = segment(client, png)["instances"]
    assert result.get_response()["id"] == "x"
    assert result.as_numpy("boxes_xyxy").dtype == np.float32
    assert result.as_numpy("boxes_xyxy").shape == (2, 4)
    assert result.as_numpy("class_indices").tolist() == [0, 1]
    assert result.as_numpy("class_names").tolist() == [b"balloon", b"kite"]
    rles = [json.loads(text) for text in result.as_numpy("masks_rle")]
    assert rles == [instance["mask"] for instance in found]

    pixels = triton.InferInput("image", list(photo.shape), "UINT8")
    pixels.set_data_from_numpy(photo)
    asked = [
        triton.InferRequestedOutput("masks"),
        triton.InferRequestedOutput("scores", binary_data=False),
    ]
    result = client_of_triton.infer(
        "balloon", [pixels], outputs=asked, parameters={"min_score": 0.9}
    )
    assert result.as_numpy("masks").shape == (1, 48, 64)
    assert np.array_equal(result.as_numpy("masks")[0], decode_rle(rles[0]))
    assert result.as_numpy("scores") == pytest.approx([0.95])


def test_triton_client_reads_an_empty_answer(
    client_of_triton: triton.InferenceServerClient, png: bytes
) -> None:
    result = client_of_triton.infer("balloon", [triton_input(png)], parameters={"min_score": 1})
    assert result.as_numpy("boxes_xyxy").shape == (0, 4)
    assert result.as_numpy("masks_rle").shape == (0,)


@pytest.mark.parametrize(
    ("model", "parameters", "status", "words"),
    [
        ("none", {}, "404", "There is no model"),
        ("balloon", {"min_scor": 1}, "422", "min_scor"),
    ],
)
def test_triton_client_is_told_errors(
    client_of_triton: triton.InferenceServerClient,
    png: bytes,
    model: str,
    parameters: dict[str, Any],
    status: str,
    words: str,
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        client_of_triton.infer(model, [triton_input(png)], parameters=parameters)
    assert caught.value.status() == status


def test_triton_client_with_a_key(serve: Callable[..., str], png: bytes) -> None:
    key = "a-key-of-some-length"
    with triton.InferenceServerClient(serve(api_keys=(key,))) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="API key"):
            client.infer("balloon", [triton_input(png)])
        headers = {"Authorization": f"Bearer {key}"}
        assert client.infer("balloon", [triton_input(png)], headers=headers).as_numpy("scores").size
