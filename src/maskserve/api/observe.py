"""What is told of each request: its id, its line in the log, its counts and its spans."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from flask import Flask, Response, g, has_request_context, request

from maskserve.api.request import ARRIVED
from maskserve.api.services import Services, current_services
from maskserve.api.stopwatch import STAGES, Stopwatch

__all__ = ["note", "observe_requests", "record_photo"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

_access_log = logging.getLogger("maskserve.access")


def observe_requests(app: Flask) -> None:
    """Give each request of ``app`` an id, a line in the log, and its place in the metrics."""
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_leave)


def note(**fields: Any) -> None:
    """Add fields to the current request's line in the log; outside a request, do nothing."""
    if has_request_context():
        g.fields.update(fields)


def record_photo(
    services: Services, *, model: str, stopwatch: Stopwatch, background: bool = False
) -> None:
    """Record the stages of a photo: in the metrics, and in the current request's line and trace.

    Args:
        services: Of the app; there need not be a request.
        model: Name of the model that segmented it.
        stopwatch: Has stopped.
        background: Nobody waited for the photo, so that its waiting tells nothing.
    """
    stages_ms = stopwatch.spent_ms
    if background:
        stages_ms = {name: stages_ms[name] for name in STAGES if name != "queue"}
    services.metrics.observe_stages(stages_ms, model=model)
    if not has_request_context():
        return
    # Some requests hold several photos; their line has the sums.
    stages = g.fields.setdefault("stages_ms", {})
    for stage, spent_ms in stopwatch.spent_ms.items():
        stages[stage] = round(stages.get(stage, 0.0) + spent_ms, 1)
    note(photos=g.fields.get("photos", 0) + 1)
    if services.tracing:
        services.tracing.record(stopwatch.spans, model=model)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    g.fields = {}
    g.arrived_s = time.monotonic()
    services = current_services()
    services.metrics.enter_request()
    if traceparent := _TRACEPARENT.fullmatch(request.headers.get("traceparent", "")):
        note(trace_id=traceparent[1])
    elif services.tracing and (trace_id := services.tracing.current_id()):
        note(trace_id=trace_id)


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    spent_s = time.monotonic() - request.environ.get(ARRIVED, g.arrived_s)
    route = request.url_rule.rule if request.url_rule else "unknown"
    current_services().metrics.count_request(
        route=route, status=response.status_code, spent_s=spent_s, code=g.fields.get("code")
    )
    _access_log.info(
        "request",
        extra={
            "fields": {
                "request_id": g.request_id,
                "remote": request.remote_addr,
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "bytes": response.content_length,
                "ms": round(spent_s * 1e3, 1),
                **g.fields,
            }
        },
    )
    return response


def _leave(_: BaseException | None) -> None:
    current_services().metrics.leave_request()
