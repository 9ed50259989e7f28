"""What is told of each request."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from api_fakes import make_client, make_registry
from maskserve.api.observe import _TRACEPARENT, note
from maskserve.api.services import Services
from maskserve.api.work import segmented

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The access lines that a test causes."""
    caplog.set_level(logging.INFO, logger="maskserve.access")

    class Lines(list[dict[str, Any]]):
        def __iter__(self) -> Any:
            return iter(vars(record)["fields"] for record in caplog.records)

    return Lines()


def test_a_segmented_photo_has_model_stages_and_no_code(
    client: FlaskClient, jpeg: bytes, lines: list[dict[str, Any]]
) -> None:
    client.post("/v1/models/second/segment?style=mask", data=jpeg, content_type="image/jpeg")
    (line,) = lines
    assert (line["model"], line["photos"]) == ("second", 1)
    assert list(line["stages_ms"]) == ["decode", "queue", "infer", "paste", "draw", "total"]
    assert line["stages_ms"]["total"] <= line["ms"] + 0.1
    assert "code" not in line
    assert "key" not in line


def test_a_refusal_has_its_code_and_the_model_that_was_asked_for(
    client: FlaskClient, lines: list[dict[str, Any]]
) -> None:
    client.post("/v1/segment", data=b"no photo", content_type="image/jpeg")
    client.get("/v1/nothing")
    refused, missed = lines
    assert (refused["status"], refused["code"]) == (422, "image_undecodable")
    assert refused["model"] == "balloon"
    assert "stages_ms" not in refused
    assert (missed["code"], "model" in missed) == ("not_found", False)


def test_stages_of_several_photos_are_added_up(
    client: FlaskClient, jpeg: bytes, lines: list[dict[str, Any]]
) -> None:
    services: Services = client.application.extensions["maskserve"]

    def several() -> str:
        for _ in range(3):
            with segmented(services, jpeg, model="balloon"):
                pass
        return "done"

    client.application.add_url_rule("/several", view_func=several)
    client.get("/several")
    (line,) = lines
    assert line["photos"] == 3
    assert line["stages_ms"]["total"] <= line["ms"] + 0.3


def test_photos_outside_of_a_request_are_measured_all_the_same(
    client: FlaskClient, jpeg: bytes
) -> None:
    app = make_client(make_registry()).application
    services: Services = app.extensions["maskserve"]
    note(model="x")  # goes nowhere
    with segmented(services, jpeg, model="balloon", background=True):
        pass
    text = services.metrics.to_text().decode()
    assert 'maskserve_stage_seconds_count{model="balloon",stage="infer"} 1.0' in text
    assert 'stage="queue"' not in text  # it waits for as long as it takes
    assert 'stage="total"' not in text


@pytest.mark.parametrize(
    ("traceparent", "taken"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", True),
        (f"01-{TRACE}-b7ad6b7169203331-00", True),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", False),
        (f"00-{TRACE}", False),
        ("", False),
        (f"00-{TRACE}-b7ad6b7169203331-01\n", False),
    ],
)
def test_the_callers_trace_is_logged(
    client: FlaskClient, lines: list[dict[str, Any]], traceparent: str, taken: bool
) -> None:
    client.get("/healthz", headers={"traceparent": traceparent.strip("\n")})
    (line,) = lines
    if "\n" not in traceparent:
        assert line.get("trace_id") == (TRACE if taken else None)
    assert bool(_TRACEPARENT.fullmatch(traceparent)) == taken


@given(st.text())
def test_no_other_text_becomes_a_trace_id(text: str) -> None:
    match = _TRACEPARENT.fullmatch(text)
    assert match is None or set(match[1]) <= set("0123456789abcdef")


def test_in_flight_is_what_is_in_flight(jpeg: bytes) -> None:
    seen: list[bool] = []

    def look() -> None:
        text = client.application.extensions["maskserve"].metrics.to_text().decode()
        seen.append("maskserve_requests_in_flight 1.0" in text)

    client = make_client(make_registry(before=look))
    client.post("/v1/segment", data=jpeg, content_type="image/jpeg")
    client.get("/nothing")
    text = client.application.extensions["maskserve"].metrics.to_text().decode()
    assert seen == [True]
    assert "maskserve_requests_in_flight 0.0" in text


def test_a_waiting_photo_is_in_the_queue_depth(client: FlaskClient) -> None:
    services: Services = client.application.extensions["maskserve"]

    def depth() -> str:
        (line,) = (
            line
            for line in services.metrics.to_text().decode().splitlines()
            if line.startswith("maskserve_queue_depth ")
        )
        return line.split()[1]

    assert depth() == "0.0"
    with services.admission.turn():
        assert depth() == "0.0"
    services.metrics.wait(+1)
    assert depth() == "1.0"
    services.metrics.wait(-1)
    assert depth() == "0.0"
