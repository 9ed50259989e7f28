"""Bodies stay in memory, and their parts within limits."""

from __future__ import annotations

import base64
import tempfile
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from werkzeug import formparser

from api_fakes import check_problem, make_client, make_registry

LARGE = 1_000_000
"""Bytes from which werkzeug would make a temporary file."""


def test_a_large_form_makes_no_temporary_file(jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a temporary file was made")

    for module, name in (
        (formparser, "SpooledTemporaryFile"),
        (tempfile, "TemporaryFile"),
        (tempfile, "NamedTemporaryFile"),
        (tempfile, "mkstemp"),
    ):
        monkeypatch.setattr(module, name, refuse)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    answer = make_client(make_registry()).post(
        "/v1/segment",
        data=head + jpeg + bytes(LARGE) + b"\r\n--x--\r\n",
        content_type="multipart/form-data; boundary=x",
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("way", ["raw", "form", "json"])
def test_a_photo_may_be_as_large_as_the_limit_whichever_way_it_comes(jpeg: bytes, way: str) -> None:
    client = make_client(make_registry(), max_bytes=len(jpeg) + 100)
    for extra, status in ((100, 200), (101, 413)):
        photo = jpeg + bytes(extra)
        answer = {
            "raw": lambda photo=photo: client.post("/v1/segment", data=photo),
            "form": lambda photo=photo: client.post(
                "/v1/segment", data={"image": (BytesIO(photo), "a.jpg")}
            ),
            "json": lambda photo=photo: client.post(
                "/v1/segment", json={"image": base64.b64encode(photo).decode()}
            ),
        }[way]()
        assert answer.status_code == status, answer.text


def test_a_form_of_many_parts_is_refused(client: FlaskClient, jpeg: bytes) -> None:
    texts = {f"text{number}": "a" for number in range(7)}
    answer = client.post("/v1/segment", data={**texts, "image": (BytesIO(jpeg), "a.jpg")})
    check_problem(answer, 422, "bad_parameter", "unknown field")
    texts["one more"] = "a"
    answer = client.post("/v1/segment", data={**texts, "image": (BytesIO(jpeg), "a.jpg")})
    check_problem(answer, 413, "image_too_large", "8 parts", "“image”")


def test_a_length_that_is_too_large_is_refused_without_reading(client: FlaskClient) -> None:
    answer = client.post("/v1/segment", content_length=10**15, content_type="image/jpeg")
    check_problem(answer, 413, "image_too_large", "MiB")
