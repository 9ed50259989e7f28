"""Hugging Face's image-segmentation, by hand and by ``huggingface_hub``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from werkzeug.test import TestResponse

from maskserve.core.masks import decode_rle
from maskserve.runtime.image_io import decode_image

ROUTE = "/hf/image-segmentation"


def as_json(data: bytes, **parameters: Any) -> dict[str, Any]:
    return {"inputs": base64.b64encode(data).decode(), "parameters": parameters}


def check_error(response: TestResponse, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert words in response.get_json()["error"]


def test_body_and_json_answer_alike(client: FlaskClient, png: bytes) -> None:
    found = client.post("/v1/segment", data=png, content_type="image/png").get_json()["instances"]
    answer = client.post(ROUTE, data=png).get_json()
    assert client.post(ROUTE, json=as_json(png)).get_json() == answer
    assert client.post("/hf/models/balloon", data=png).get_json() == answer
    assert [set(segment) for segment in answer] == [{"label", "score", "mask"}] * 2
    for segment, instance in zip(answer, found, strict=True):
        assert segment["label"] == instance["class"]
        assert segment["score"] == pytest.approx(instance["score"], abs=1e-4)
        mask = decode_image(base64.b64decode(segment["mask"]))[..., 0]
        assert np.array_equal(mask == 255, decode_rle(instance["mask"]))


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ({}, 2),
        ({"threshold": 0.0}, 3),
        ({"threshold": 0.9, "subtask": "instance"}, 1),
        ({"mask_threshold": 0.5, "overlap_mask_area_threshold": 0.5}, 2),
    ],
)
def test_parameters(
    client: FlaskClient, png: bytes, parameters: dict[str, Any], count: int
) -> None:
    assert len(client.post(ROUTE, json=as_json(png, **parameters)).get_json()) == count


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"threshold": 2}, "parameters.threshold: must be less than or equal to 1"),
        ({"mask_threshold": 0.3}, "mask_threshold must be 0.5"),
        ({"subtask": "semantic"}, "parameters.subtask: must be 'instance'"),
        ({"min_score": 0.3}, "There is no parameter “parameters.min_score”"),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: FlaskClient, png: bytes, parameters: dict[str, Any], words: str
) -> None:
    check_error(client.post(ROUTE, json=as_json(png, **parameters)), 422, words)


def test_other_failures_have_the_same_form(client: FlaskClient, png: bytes) -> None:
    check_error(client.post(ROUTE, data=b""), 422, "empty")
    check_error(client.post(ROUTE, data=b"GIF89a"), 415, "GIF")
    check_error(client.post(ROUTE, json={"inputs": "%"}), 422, "inputs is not base64")
    check_error(client.post(ROUTE, json={"input": "AA"}), 422, "inputs: Field required")
    check_error(client.post(ROUTE, data=b"x" * 300_000), 413, "bytes")
    check_error(client.post("/hf/models/none", data=png), 404, "There is no model")


def test_the_real_client(serve: Callable[..., str], png: bytes, tmp_path: Path) -> None:
    key = "a-key-of-some-length"
    host = serve(api_keys=(key,))
    client = InferenceClient(model=f"http://{host}{ROUTE}", token=key)
    file = tmp_path / "photo.png"
    file.write_bytes(png)
    for photo in (png, file, str(file)):
        segments = client.image_segmentation(photo)
        assert [segment.label for segment in segments] == ["balloon", "kite"]
        mask = segments[0].mask
        assert (getattr(mask, "mode", ""), getattr(mask, "size", ())) == ("L", (64, 48))
    (best,) = client.image_segmentation(png, threshold=0.9, subtask="instance")
    assert best.score == pytest.approx(0.95)
    with pytest.raises(HfHubHTTPError, match="mask_threshold must be"):
        client.image_segmentation(png, mask_threshold=0.9)
    stranger = InferenceClient(model=f"http://{host}{ROUTE}", token="another-key-of-that-length")
    with pytest.raises(HfHubHTTPError, match="does not know this API key"):
        stranger.image_segmentation(png)
