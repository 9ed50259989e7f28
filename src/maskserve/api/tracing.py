"""OpenTelemetry traces, for servers that are told where to send them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from maskserve.api.stopwatch import Span
from maskserve.core.errors import MissingExtraError

if TYPE_CHECKING:
    from flask import Flask
    from opentelemetry.trace import TracerProvider

__all__ = ["Tracing", "is_tracing_wanted", "make_exporting_tracing"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NOT_TRACED = "/healthz$,/readyz$,/metrics$"

_log = logging.getLogger(__name__)


def is_tracing_wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables name a place to send traces to.

    Without one, OpenTelemetry would send to a port of this machine; here nothing is sent.
    """
    return (
        any(environ.get(name) for name in _ENDPOINTS)
        and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )


def make_exporting_tracing() -> Tracing:
    """Send traces by OTLP over HTTP; OpenTelemetry reads all its settings from the environment.

    Starts a thread, so call it in the process that serves.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            f"Sending traces needs the extra “otel” ({error.name} is missing).",
            hint="pip install 'maskserve[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT.",
        ) from None
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name that stands here.
    resource = Resource.create({"service.name": "maskserve"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """Spans of requests, by OpenTelemetry's Flask instrumentation, and of the stages below them."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("maskserve")

    def instrument(self, app: Flask) -> None:
        """Give each request of ``app`` a span; call it before the app gets other hooks."""
        from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415

        FlaskInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
            app, tracer_provider=self._provider, excluded_urls=_NOT_TRACED
        )

    def current_id(self) -> str | None:
        """The id of the trace that the current request belongs to, 32 hexadecimal digits."""
        from opentelemetry.trace import format_trace_id, get_current_span  # noqa: PLC0415

        context = get_current_span().get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else None

    def record(self, spans: Iterable[Span], *, model: str) -> None:
        """Add stages, which are over, as children of the current request's span."""
        for span in spans:
            self._tracer.start_span(
                span.stage, attributes={"maskserve.model": model}, start_time=span.start_ns
            ).end(span.end_ns)
