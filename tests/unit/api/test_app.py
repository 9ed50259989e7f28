"""What holds for every route: ids, headers, logs, problems, and the OpenAPI document."""

from __future__ import annotations

import json
import logging
import re

import pytest
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from api_fakes import FakeRegistry, check_problem, make_client, make_registry
from maskserve.core.errors import EngineError


@pytest.mark.parametrize("given", ["a", "Trace-1._x", "9" * 64])
def test_a_sane_request_id_is_taken_over(client: FlaskClient, given: str) -> None:
    response = client.get("/healthz", headers={"X-Request-Id": given})
    assert response.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, 'a"b', "größe"])
def test_any_other_request_id_is_replaced(client: FlaskClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    response = client.get("/healthz", headers=headers)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


@pytest.mark.parametrize("path", ["/", "/openapi/", "/openapi/swagger"])
def test_pages_obey_a_strict_policy(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", response.text)
    assert not re.search(r"(src|href)=.?(https?:)?//", response.text)


@pytest.mark.parametrize("path", ["/", "/openapi/"])
def test_everything_that_a_page_loads_is_there(client: FlaskClient, path: str) -> None:
    links = re.findall(r'(?:src|href|data-document)="(/[^"]+)"', client.get(path).text)
    assert len(links) >= 3
    for link in links:
        with client.get(link) as response:
            assert response.status_code == 200, link


def test_unknown_route(client: FlaskClient) -> None:
    check_problem(client.get("/v1/nothing"), 404, "not_found")


def test_wrong_method_says_which_are_allowed(client: FlaskClient) -> None:
    response = client.get("/v1/segment")
    check_problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_redirects_stay_redirects(client: FlaskClient) -> None:
    assert client.get("/openapi").status_code == 308


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("/opt/secret/model.onnx: bad node"), "engine_failed"),
        (RuntimeError("/opt/secret is full"), "error"),
    ],
)
def test_failures_are_logged_and_not_told(
    jpeg: bytes, caplog: pytest.LogCaptureFixture, error: Exception, code: str
) -> None:
    def fail() -> None:
        raise error

    client = make_client(make_registry(before=fail))
    response = client.post("/v1/segment", data=jpeg, content_type="image/jpeg")
    check_problem(response, 500, code, "log")
    assert "secret" not in response.text
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == 1
    assert response.headers["X-Request-Id"] in records[0].getMessage()
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error


def test_each_request_is_logged_once(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="maskserve.access"):
        response = client.get("/v1/models/x%0aforged")
    (record,) = caplog.records
    fields = vars(record)["fields"]
    assert fields["request_id"] == response.headers["X-Request-Id"]
    assert (fields["method"], fields["status"]) == ("GET", 404)
    assert fields["path"] == "/v1/models/x\nforged"
    assert "\n" not in json.dumps(fields)


def test_openapi_document_is_valid(client: FlaskClient) -> None:
    document = client.get("/openapi/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_openapi_document_has_every_route(client: FlaskClient, registry: FakeRegistry) -> None:
    document = client.get("/openapi/openapi.json").get_json()
    operations = {(method, path) for path, item in document["paths"].items() for method in item}
    assert operations == {
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{name}"),
        ("post", "/v1/segment"),
        ("post", "/v1/models/{name}/segment"),
        ("get", "/v1/jobs"),
        ("post", "/v1/jobs"),
        ("get", "/v1/jobs/{id}"),
        ("delete", "/v1/jobs/{id}"),
        ("get", "/v1/jobs/{id}/results"),
        ("get", "/v1/jobs/{id}/pictures"),
    }


def test_openapi_document_says_that_failures_are_problems(client: FlaskClient) -> None:
    document = client.get("/openapi/openapi.json").get_json()
    for item in document["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]


def test_answer_fits_the_openapi_document(client: FlaskClient, jpeg: bytes) -> None:
    document = client.get("/openapi/openapi.json").get_json()
    reference = {"$ref": "#/components/schemas/SegmentBody", "components": document["components"]}
    for masks in ("rle", "polygon", "png", "none"):
        response = client.post(
            f"/v1/segment?include=image&masks={masks}", data=jpeg, content_type="image/jpeg"
        )
        OAS31Validator(reference).validate(response.get_json())
