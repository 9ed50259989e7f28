"""OpenTelemetry traces."""

from __future__ import annotations

import logging
import os
import sys

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from api_fakes import make_registry
from maskserve.api import ServerSettings, create_app
from maskserve.api.tracing import Tracing, is_tracing_wanted, make_exporting_tracing
from maskserve.core.errors import MissingExtraError

pytest.importorskip("opentelemetry.sdk", reason="needs the extra “otel”")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

KEY = "a-key-that-nobody-guesses"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(exporter: InMemorySpanExporter) -> FlaskClient:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = ServerSettings(api_keys=(SecretStr(KEY),))
    return create_app(settings, make_registry(), tracing=Tracing(provider)).test_client()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_stages_are_children_of_the_request(
    client: FlaskClient, exporter: InMemorySpanExporter, jpeg: bytes
) -> None:
    headers = {
        "X-API-Key": KEY,
        "Content-Type": "image/jpeg",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    }
    response = client.post("/v1/segment?include=image", data=jpeg, headers=headers)
    assert response.status_code == 200
    spans = by_name(exporter)
    root = spans.pop("POST /v1/segment")
    assert set(spans) == {"decode", "queue", "infer", "paste", "draw"}
    assert root.context is not None
    assert root.context.trace_id == int(TRACE, 16)
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        assert span.attributes == {"maskserve.model": "balloon"}
        assert root.start_time is not None
        assert span.start_time is not None
        assert span.end_time is not None
        assert root.start_time - 1_000_000 <= span.start_time <= span.end_time
    assert KEY not in root.to_json()


def test_a_refused_request_has_a_span_and_no_warning(
    client: FlaskClient, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/v1/models").status_code == 401
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert 401 in span.attributes.values()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_what_is_asked_all_the_time_is_not_traced(
    client: FlaskClient, exporter: InMemorySpanExporter, path: str
) -> None:
    assert client.get(path, headers={"X-API-Key": KEY}).status_code == 200
    assert exporter.get_finished_spans() == ()


def test_the_trace_is_in_the_log(
    client: FlaskClient, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="maskserve.access"):
        client.get("/v1/models", headers={"X-API-Key": KEY})
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    fields = vars(caplog.records[-1])["fields"]
    assert fields["trace_id"] == f"{span.context.trace_id:032x}"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_only_an_endpoint_makes_it_send(environ: dict[str, str], wanted: bool) -> None:
    assert is_tracing_wanted(environ) == wanted


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(MissingExtraError, match=r"maskserve\[otel\]"):
        make_exporting_tracing()


def test_this_process_has_no_endpoint() -> None:
    """Or the tests would send traces."""
    assert not is_tracing_wanted(os.environ)
