"""The routes of a Label Studio backend, and the loop from its export to its predictions."""

from __future__ import annotations

import base64
import json
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import ExifTags
from PIL import Image as PillowImage
from werkzeug.test import TestResponse

from api_fakes import check_problem, make_client, make_registry
from maskserve.core.brush_rle import decode_brush
from maskserve.core.masks import decode_rle
from maskserve.core.predictor import Image
from maskserve.datasets import load_dataset

SIZE = (48, 64)

BRUSH = """<View><Image name="photo" value="$image"/><BrushLabels name="mask" toName="photo">
<Label value="Balloon"/><Label value="Dragon" predicted_values="kite"/></BrushLabels></View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")


def task(data: bytes, number: int = 1) -> dict[str, Any]:
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"id": number, "data": {"image": uri}, "annotations": [], "predictions": []}


def predict(
    client: FlaskClient, *tasks: Any, config: str = BRUSH, backend: str = ""
) -> TestResponse:
    body = {
        "tasks": list(tasks),
        "project": "3.1764061112",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }
    return client.post(f"{backend}/predict", json=body)


def results_of(response: TestResponse) -> list[Any]:
    assert response.status_code == 200, response.text
    assert set(response.get_json()) == {"results"}
    results: list[Any] = response.get_json()["results"]
    return results


def segment(client: FlaskClient, data: bytes) -> list[dict[str, Any]]:
    answer = client.post("/v1/segment", data=data, content_type="image/png").get_json()
    found: list[dict[str, Any]] = answer["instances"]
    return found


def test_health_and_page(client: FlaskClient) -> None:
    assert client.get("/health").get_json()["status"] == "UP"
    assert client.get("/label-studio/second/health").get_json()["status"] == "UP"
    assert "text/html" in client.get("/").content_type


def set_up(client: FlaskClient, schema: str, backend: str = "") -> TestResponse:
    body = {
        "project": "3.1764061112",
        "schema": schema,
        "hostname": "http://localhost:8080",
        "access_token": "0123456789abcdef",
        "extra_params": None,
    }
    return client.post(f"{backend}/setup", json=body)


def test_setup_tells_the_version_of_the_model(client: FlaskClient) -> None:
    assert set_up(client, BRUSH).get_json() == {"model_version": "balloon 1.0.0"}
    answer = set_up(client, BRUSH, "/label-studio/second").get_json()
    assert answer == {"model_version": "second 1.0.0"}


def test_setup_refuses_what_cannot_be_pre_annotated(client: FlaskClient) -> None:
    check_problem(set_up(client, "<View/>"), 422, "bad_parameter", "no BrushLabels")
    check_problem(set_up(client, BRUSH, "/label-studio/none"), 404, "unknown_model")
    check_problem(client.post("/setup", json={}), 422, "bad_parameter", "schema")


def test_webhook_has_no_effect(client: FlaskClient) -> None:
    answer = client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}})
    assert answer.status_code == 200
    assert answer.get_json()["status"] == "ignored"


def test_brushes_are_the_masks_to_the_pixel(client: FlaskClient, png: bytes) -> None:
    (prediction,) = results_of(predict(client, task(png)))
    found = segment(client, png)
    assert prediction["model_version"] == "balloon 1.0.0"
    assert prediction["score"] == pytest.approx(np.mean([i["score"] for i in found]))
    regions = prediction["result"]
    assert len({region["id"] for region in regions}) == len(regions) == 2
    for region, instance, label in zip(regions, found, ["Balloon", "Dragon"], strict=True):
        assert (region["from_name"], region["to_name"]) == ("mask", "photo")
        assert region["type"] == "brushlabels"
        assert (region["original_width"], region["original_height"]) == (64, 48)
        assert region["image_rotation"] == 0
        assert region["score"] == pytest.approx(instance["score"], abs=1e-4)
        assert region["value"]["brushlabels"] == [label]
        assert region["value"]["format"] == "rle"
        mask = decode_brush(bytes(region["value"]["rle"]), SIZE)
        assert np.array_equal(mask, decode_rle(instance["mask"]))


def test_polygons_are_in_percent(client: FlaskClient, png: bytes) -> None:
    (prediction,) = results_of(predict(client, task(png), config=POLYGON))
    for region, instance in zip(prediction["result"], segment(client, png), strict=True):
        assert region["type"] == "polygonlabels"
        assert region["value"]["closed"] is True
        x, y = np.array(region["value"]["points"]).T
        assert 3 <= len(x) < 40
        left, top, width, height = instance["bbox_xywh"]
        box = [x.min() * 0.64, y.min() * 0.48, np.ptp(x) * 0.64, np.ptp(y) * 0.48]
        assert box == pytest.approx([left, top, width, height], abs=2)


def test_exif_orientation_is_that_of_a_browser(client: FlaskClient, photo: Image) -> None:
    exif = PillowImage.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = BytesIO()
    PillowImage.fromarray(photo).save(buffer, "PNG", exif=exif)
    (prediction,) = results_of(predict(client, task(buffer.getvalue())))
    region = prediction["result"][0]
    assert (region["original_width"], region["original_height"]) == (48, 64)
    assert region["image_rotation"] == 0


def test_threshold_of_the_config(client: FlaskClient, png: bytes) -> None:
    config = BRUSH.replace('toName="photo">', 'toName="photo" model_score_threshold="0.9">')
    (prediction,) = results_of(predict(client, task(png), config=config))
    assert len(prediction["result"]) == 1


def test_classes_without_a_label_are_left_out_and_told_once(
    png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    config = BRUSH.replace(' predicted_values="kite"', "")
    with make_client(make_registry("told-once")) as client, caplog.at_level(logging.WARNING):
        set_up(client, config)
        for _ in range(2):
            (prediction,) = results_of(predict(client, task(png), config=config))
            assert [r["value"]["brushlabels"] for r in prediction["result"]] == [["Balloon"]]
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert told == ["model told-once: left out, since “mask” has no label for them: kite"]


def test_nothing_found(client: FlaskClient, png: bytes) -> None:
    config = BRUSH.replace('toName="photo">', 'toName="photo" model_score_threshold="1">')
    (prediction,) = results_of(predict(client, task(png), config=config))
    assert (prediction["result"], prediction["score"]) == ([], 0)


def test_one_bad_photo_does_not_cost_the_others_their_predictions(
    client: FlaskClient, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = task(png, 1), {"id": 2, "data": {"image": "https://example.org/a.jpg"}}
    first, second, third = results_of(predict(client, good, bad, task(png, 3)))
    assert len(first["result"]) == len(third["result"]) == 2
    assert second == []  # which Label Studio stores as no prediction, not as an empty one
    assert "task 2 has no prediction" in caplog.text


@pytest.mark.parametrize(
    ("data", "status", "code", "words"),
    [
        ({"image": "https://example.org/a.jpg"}, 422, "bad_parameter", "not fetched"),
        ({"other": "x"}, 422, "image_missing", "has no photo"),
        ({"image": "data:image/png;base64,AAAA"}, 422, "image_undecodable", "not an image"),
    ],
)
def test_error_of_the_only_task_is_the_answer(
    client: FlaskClient, data: dict[str, Any], status: int, code: str, words: str
) -> None:
    check_problem(predict(client, {"id": 1, "data": data}), status, code, words)


def test_no_tasks(client: FlaskClient) -> None:
    assert results_of(predict(client)) == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"tasks": []}', b'{"tasks": 1, "label_config": ""}']
)
def test_other_bodies_are_refused(client: FlaskClient, body: bytes) -> None:
    check_problem(client.post("/predict", data=body), 422, "bad_parameter")


def test_full_server_fails_the_whole_request(png: bytes) -> None:
    """Later is better than some tasks without predictions."""
    with make_client(make_registry(), queue_size=0) as client:
        admission = client.application.extensions["maskserve"].admission
        with admission.place():
            check_problem(predict(client, task(png)), 503, "server_full")


def test_key_as_the_password_that_label_studio_sends(png: bytes) -> None:
    key = "a-key-of-some-length"
    with make_client(make_registry(), api_keys=(key,)) as client:
        assert client.get("/health").status_code == 200
        assert set_up(client, BRUSH).status_code == 401
        basic = base64.b64encode(f"label-studio:{key}".encode()).decode()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Basic {basic}"
        assert set_up(client, BRUSH).status_code == 200
        assert len(results_of(predict(client, task(png)))) == 1


@pytest.mark.parametrize("config", [BRUSH, POLYGON], ids=["brush", "polygon"])
def test_loop_from_predictions_to_annotations_and_back(
    client: FlaskClient, png: bytes, tmp_path: Path, config: str
) -> None:
    """What is predicted, accepted in Label Studio, exported and read is what was predicted."""
    (prediction,) = results_of(predict(client, task(png), config=config))
    exported = {
        "id": 1,
        "data": {"image": "/data/upload/1/0a1b2c3d-photo.png"},
        "annotations": [{"id": 5, "result": prediction["result"], "was_cancelled": False}],
        "predictions": [],
    }
    (tmp_path / "photo.png").write_bytes(png)
    (tmp_path / "project-1.json").write_text(json.dumps([exported]), encoding="utf-8")
    dataset = load_dataset(tmp_path)
    assert dataset.categories.names == ("Balloon", "Dragon")
    (sample,) = dataset.samples
    assert [annotation.class_index for annotation in sample.annotations] == [0, 1]
    for annotation, instance in zip(sample.annotations, segment(client, png), strict=True):
        mask, expected = annotation.mask(SIZE), decode_rle(instance["mask"])
        overlap = (mask & expected).sum() / (mask | expected).sum()
        assert overlap == 1 if config == BRUSH else overlap > 0.85
