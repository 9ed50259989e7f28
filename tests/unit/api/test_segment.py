"""``POST /v1/segment``: every way in, every parameter, every form of answer."""

from __future__ import annotations

import base64
import json
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags
from PIL import Image as PillowImage
from werkzeug.test import TestResponse

from api_fakes import ELLIPSES, check_problem
from maskserve.core.masks import decode_rle, polygons_to_rle, rle_area
from maskserve.core.predictor import Image
from maskserve.runtime.image_io import decode_image

SIZE = (48, 64)


def post(
    client: FlaskClient, data: bytes, path: str = "/v1/segment", **kwargs: Any
) -> TestResponse:
    return client.post(path, data=data, content_type="image/jpeg", **kwargs)


def answer_of(response: TestResponse) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.get_json()
    return answer


# --- three ways to send a photo ---------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream", None])
def test_raw_body(client: FlaskClient, jpeg: bytes, content_type: str | None) -> None:
    answer = answer_of(client.post("/v1/segment", data=jpeg, content_type=content_type))
    assert answer["image"] == {"width": SIZE[1], "height": SIZE[0]}


def test_multipart_and_json_answer_like_a_raw_body(client: FlaskClient, png: bytes) -> None:
    answers = [
        answer_of(client.post("/v1/segment", data=png, content_type="image/png")),
        answer_of(client.post("/v1/segment", data={"image": (BytesIO(png), "a.png")})),
        answer_of(client.post("/v1/segment", json={"image": base64.b64encode(png).decode()})),
    ]
    for answer in answers:
        del answer["request_id"], answer["timing_ms"]
    assert answers[0] == answers[1] == answers[2]


def test_exif_orientation_is_applied(client: FlaskClient, photo: Image) -> None:
    exif = PillowImage.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = BytesIO()
    PillowImage.fromarray(photo).save(buffer, "JPEG", exif=exif)
    answer = answer_of(post(client, buffer.getvalue()))
    assert answer["image"] == {"width": SIZE[0], "height": SIZE[1]}


# --- the JSON ---------------------------------------------------------------------------------


def test_answer_names_request_model_and_every_stage(client: FlaskClient, jpeg: bytes) -> None:
    response = post(client, jpeg)
    answer = answer_of(response)
    assert list(answer) == [
        "request_id", "model", "image", "coverage", "instances", "timing_ms"
    ]  # fmt: skip
    assert answer["request_id"] == response.headers["X-Request-Id"]
    assert answer["model"] == {"name": "balloon", "version": "1.0.0"}
    timing = answer["timing_ms"]
    assert list(timing) == ["decode", "queue", "infer", "paste", "draw", "total"]
    assert timing["draw"] == 0
    assert sum(timing.values()) - timing["total"] <= timing["total"]


def test_instances_are_described(client: FlaskClient, jpeg: bytes) -> None:
    best = answer_of(post(client, jpeg))["instances"][0]
    (left, top, right, bottom), score, _ = ELLIPSES[0]
    assert best["id"] == 0
    assert (best["class"], best["class_index"]) == ("balloon", 0)
    assert best["score"] == pytest.approx(score)
    width, height = SIZE[1], SIZE[0]
    assert best["bbox_xywh"] == pytest.approx(
        [left * width, top * height, (right - left) * width, (bottom - top) * height], abs=0.01
    )
    assert best["area_percent"] == pytest.approx(100 * best["area_px"] / (width * height), abs=1e-4)


@pytest.mark.parametrize(
    "query",
    ["", "?min_score=0.1", "?min_score=1", "?classes=kite", "?max_instances=1&min_score=0"],
)
def test_coverage_is_the_union_of_the_returned_masks(
    client: FlaskClient, jpeg: bytes, query: str
) -> None:
    answer = answer_of(post(client, jpeg, f"/v1/segment{query}"))
    united = np.zeros(SIZE, dtype=np.bool_)
    for instance in answer["instances"]:
        mask = decode_rle(instance["mask"])
        assert np.count_nonzero(mask) == instance["area_px"]
        united |= mask
    coverage = answer["coverage"]
    assert coverage["masked_px"] == np.count_nonzero(united)
    assert coverage["masked_px"] + coverage["unmasked_px"] == coverage["total_px"] == united.size
    assert coverage["masked_percent"] + coverage["unmasked_percent"] == pytest.approx(100)


def test_coverage_by_class_counts_every_class(client: FlaskClient, jpeg: bytes) -> None:
    coverage = answer_of(post(client, jpeg, "/v1/segment?classes=kite"))["coverage"]
    assert coverage["per_class"]["balloon"] == {"masked_px": 0, "masked_percent": 0}
    assert coverage["per_class"]["kite"]["masked_px"] == coverage["masked_px"] > 0


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "scores"),
    [
        ("", [0.95, 0.80]),  # the manifest's 0.5
        ("?min_score=0", [0.95, 0.80, 0.30]),
        ("?min_score=0.9", [0.95]),
        ("?min_score=1", []),
        ("?min_score=0&classes=balloon", [0.95, 0.30]),
        ("?min_score=0&classes=kite,balloon", [0.95, 0.80, 0.30]),
        ("?min_score=0&classes=balloon&max_instances=1", [0.95]),
        ("?max_instances=99999999999999999999", [0.95, 0.80]),
    ],
)
def test_parameters_choose_instances(
    client: FlaskClient, jpeg: bytes, query: str, scores: list[float]
) -> None:
    instances = answer_of(post(client, jpeg, f"/v1/segment{query}"))["instances"]
    assert [instance["score"] for instance in instances] == pytest.approx(scores)
    assert [instance["id"] for instance in instances] == list(range(len(scores)))


def test_masks_as_polygons_png_and_not_at_all(client: FlaskClient, jpeg: bytes) -> None:
    def masks(form: str) -> list[Any]:
        answer = answer_of(post(client, jpeg, f"/v1/segment?masks={form}"))
        return [instance.get("mask") for instance in answer["instances"]]

    rles, polygons, pngs = masks("rle"), masks("polygon"), masks("png")
    assert masks("none") == [None, None]
    for rle, rings, png in zip(rles, polygons, pngs, strict=True):
        decoded = PillowImage.open(BytesIO(base64.b64decode(png)))
        assert decoded.mode == "L"
        np.testing.assert_array_equal(np.asarray(decoded) > 0, decode_rle(rle))
        from_rings = polygons_to_rle([np.array(ring) for ring in rings], SIZE)
        assert rle_area(from_rings) == pytest.approx(rle_area(rle), rel=0.02)


@pytest.mark.parametrize("style", ["overlay", "outline", "splash", "mask"])
def test_drawn_photo_in_the_json(client: FlaskClient, jpeg: bytes, style: str) -> None:
    answer = answer_of(post(client, jpeg, f"/v1/segment?include=image&style={style}"))
    assert answer["drawn_image"]["media_type"] == "image/jpeg"
    drawn = decode_image(base64.b64decode(answer["drawn_image"]["base64"]))
    assert drawn.shape == (*SIZE, 3)
    assert answer["timing_ms"]["draw"] > 0


def test_named_model(client: FlaskClient, jpeg: bytes) -> None:
    answer = answer_of(post(client, jpeg, "/v1/models/second/segment"))
    assert answer["model"]["name"] == "second"


# --- Accept -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json, image/png;q=0.9", "application/json"),
        ("image/png", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/webp, image/png;q=0.8, image/jpeg;q=0.5", "image/png"),
    ],
)
def test_accept_decides_the_answer(
    client: FlaskClient, jpeg: bytes, accept: str | None, content_type: str
) -> None:
    response = post(client, jpeg, headers={"Accept": accept} if accept else {})
    assert response.status_code == 200
    assert response.content_type == content_type


def test_drawn_photo_has_the_size_of_the_photo_and_headers_of_the_json(
    client: FlaskClient, jpeg: bytes
) -> None:
    answer = answer_of(post(client, jpeg))
    response = post(client, jpeg, "/v1/segment?style=mask", headers={"Accept": "image/png"})
    drawn = decode_image(response.data)
    assert drawn.shape == (*SIZE, 3)
    assert np.count_nonzero(drawn[..., 0]) == answer["coverage"]["masked_px"]
    headers = response.headers
    assert float(headers["X-Masked-Percent"]) == answer["coverage"]["masked_percent"]
    assert float(headers["X-Unmasked-Percent"]) == answer["coverage"]["unmasked_percent"]
    assert int(headers["X-Instance-Count"]) == len(answer["instances"])


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["text/html", "image/webp", "application/json;q=0"])
def test_nothing_acceptable(client: FlaskClient, jpeg: bytes, accept: str) -> None:
    check_problem(
        post(client, jpeg, headers={"Accept": accept}), 406, "not_acceptable", "application/json"
    )


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("min_score=2", "bad_parameter", ["min_score", "less than or equal to 1"]),
        ("min_score=nan", "bad_parameter", ["min_score"]),
        ("min_score=high", "bad_parameter", ["min_score", "number", "high"]),
        ("max_instances=0", "bad_parameter", ["max_instances"]),
        ("masks=bitmap", "bad_parameter", ["masks", "polygon"]),
        ("style=mosaic", "bad_parameter", ["style", "overlay"]),
        ("include=everything", "bad_parameter", ["include", "image"]),
        ("min_scor=0.5", "bad_parameter", ["min_scor", "Did you mean “min_score”?"]),
        ("min_score=2&style=mosaic", "bad_parameter", ["min_score", "style"]),
        ("classes=balloon&classes=kite", "bad_parameter", ["classes", "2 times"]),
        ("classes=balloon,,kite", "bad_parameter", ["classes", "empty"]),
        ("classes=baloon", "unknown_class", ["baloon", "Did you mean “balloon”?"]),
    ],
)
def test_bad_parameters(
    client: FlaskClient, jpeg: bytes, query: str, code: str, words: list[str]
) -> None:
    check_problem(post(client, jpeg, f"/v1/segment?{query}"), 422, code, *words)


@given(
    query=st.dictionaries(
        st.sampled_from(
            ["min_score", "classes", "max_instances", "masks", "style", "include", "x"]
        ),
        st.one_of(st.text(max_size=8), st.floats().map(str), st.integers().map(str)),
    )
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_query_gets_an_answer_or_a_problem(
    client: FlaskClient, jpeg: bytes, query: dict[str, str]
) -> None:
    response = post(client, jpeg, query_string=query)
    if response.status_code != 200:
        code = response.get_json()["code"]
        assert code in ("bad_parameter", "unknown_class")
        check_problem(response, 422, code)


def test_unknown_model(client: FlaskClient, jpeg: bytes) -> None:
    response = post(client, jpeg, "/v1/models/ballon/segment")
    check_problem(response, 404, "unknown_model", "ballon")


def test_empty_body(client: FlaskClient) -> None:
    check_problem(post(client, b""), 422, "image_missing", "empty")


def test_text_that_is_named_jpg(client: FlaskClient) -> None:
    response = client.post("/v1/segment", data={"image": (BytesIO(b"not a photo"), "photo.jpg")})
    check_problem(response, 422, "image_undecodable")


def test_truncated_jpeg(client: FlaskClient, jpeg: bytes) -> None:
    check_problem(post(client, jpeg[: len(jpeg) // 2]), 422, "image_undecodable")


def test_gif(client: FlaskClient) -> None:
    check_problem(post(client, b"GIF89a" + bytes(64)), 415, "image_type_unsupported", "GIF")


def test_too_many_pixels(client: FlaskClient, png: bytes) -> None:
    # The size stands in the first chunk, whose checksum would have to fit if it were read.
    chunk = b"IHDR" + (40_000).to_bytes(4) * 2 + png[24:29]
    checksum = zlib.crc32(chunk).to_bytes(4)
    check_problem(post(client, png[:12] + chunk + checksum + png[33:]), 413, "image_too_large")


def test_too_many_bytes(client: FlaskClient, jpeg: bytes) -> None:
    check_problem(post(client, jpeg + bytes(200_000)), 413, "image_too_large", "MiB")
    check_problem(post(client, jpeg + bytes(400_000)), 413, "image_too_large", "MiB")


def test_wrong_field_name(client: FlaskClient, jpeg: bytes) -> None:
    response = client.post("/v1/segment", data={"photo": (BytesIO(jpeg), "a.jpg")})
    check_problem(response, 422, "image_missing", "“image”", "“photo”")


def test_field_that_is_no_file(client: FlaskClient) -> None:
    response = client.post(
        "/v1/segment", data={"image": "a.jpg"}, content_type="multipart/form-data"
    )
    check_problem(response, 422, "image_missing", "not a file")


def test_large_field_that_is_no_file(client: FlaskClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n%b\r\n--x--\r\n'
    response = client.post(
        "/v1/segment", data=body % (b"a" * 200_000), content_type="multipart/form-data; boundary=x"
    )
    check_problem(response, 422, "image_missing", "not a file")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("{", "bad_parameter", ["not JSON"]),
        ("[" * 100_000, "bad_parameter", ["not JSON"]),
        ("[]", "image_missing", ["“image”"]),
        ('{"photo": ""}', "image_missing", ["“image”"]),
        ('{"image": 5}', "bad_parameter", ["not a text"]),
        ('{"image": "%%%"}', "bad_parameter", ["base64"]),
        ('{"image": "ß"}', "bad_parameter", ["base64"]),
        ('{"image": "data:image/png;base64,AAAA"}', "bad_parameter", ["data:"]),
        ('{"image": "", "min_score": 1}', "bad_parameter", ["min_score", "URL"]),
        ('{"image": ""}', "image_missing", []),
        ("", "image_missing", ["empty"]),
    ],
)
def test_bad_json(client: FlaskClient, body: str, code: str, words: list[str]) -> None:
    response = client.post("/v1/segment", data=body, content_type="application/json")
    check_problem(response, 422, code, *words)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_content_type_that_is_none_of_the_three(
    client: FlaskClient, jpeg: bytes, content_type: str
) -> None:
    response = client.post("/v1/segment", data=jpeg, content_type=content_type)
    check_problem(response, 415, "image_type_unsupported", content_type, "image/jpeg")


def test_server_lives_on_after_refusals(client: FlaskClient, jpeg: bytes) -> None:
    for body in (b"", b"text", jpeg[:100]):
        assert post(client, body).status_code == 422
    assert json.loads(post(client, jpeg).data)["instances"]


def test_a_form_with_another_field_is_refused(client: FlaskClient, jpeg: bytes) -> None:
    form = {"image": (BytesIO(jpeg), "photo.jpg"), "min_score": "0.5"}
    check_problem(
        client.post("/v1/segment", data=form), 422, "bad_parameter", "field “min_score”", "URL"
    )
