"""Answers to what never reaches the app: gunicorn refuses requests that are not good HTTP."""

from __future__ import annotations

import logging
import socket
import uuid

from gunicorn import util
from werkzeug.http import HTTP_STATUS_CODES

from maskserve.api.browsers import SECURITY_HEADERS
from maskserve.api.metrics import Metrics
from maskserve.api.problems import PROBLEM_JSON, SEE_LOG, make_problem

__all__ = ["answer_as_app_does"]

_access_log = logging.getLogger("maskserve.access")


def answer_as_app_does(metrics: Metrics) -> None:
    """Let gunicorn answer with problems instead of HTML, count them, and log them."""

    def write_error(connection: socket.socket, status: int, _reason: str, message: str) -> None:
        name = HTTP_STATUS_CODES[status]
        problem = make_problem(
            status=status,
            code=name.lower().replace(" ", "_"),
            title=name,
            detail=message or SEE_LOG,
            request_id=uuid.uuid4().hex,
        )
        util.write_nonblock(connection, _encode(status, name, problem.model_dump_json()))
        metrics.count_request(route="unknown", status=status, code=problem.code)
        _access_log.info(
            "request",
            extra={
                "fields": {
                    "request_id": problem.instance.rpartition(":")[2],
                    "remote": connection.getpeername()[0],
                    "status": status,
                    "code": problem.code,
                }
            },
        )

    util.write_error = write_error


def _encode(status: int, reason: str, body: str) -> bytes:
    content = body.encode()
    headers = {
        **SECURITY_HEADERS,
        "Connection": "close",
        "Content-Length": str(len(content)),
        "Content-Type": PROBLEM_JSON,
    }
    lines = [
        f"HTTP/1.1 {status} {reason}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
