"""Log lines as JSON."""

from __future__ import annotations

import json
import logging
import sys

from maskserve.api.logs import JsonFormatter


def format_record(message: str, **attributes: object) -> str:
    record = logging.LogRecord("maskserve.x", logging.WARNING, "f.py", 1, message, None, None)
    vars(record).update(attributes)
    return JsonFormatter().format(record)


def test_one_line_whatever_the_text_is() -> None:
    line = format_record("a\nb\u2028c", fields={"path": '"}\n{"level": "forged'})
    assert len(line.splitlines()) == 1
    values = json.loads(line)
    assert values["message"] == "a\nb\u2028c"
    assert values["level"] == "warning"
    assert values["logger"] == "maskserve.x"
    assert values["path"] == '"}\n{"level": "forged'


def test_traceback_is_a_field() -> None:
    try:
        dict[str, int]()["gone"]
    except KeyError:
        line = format_record("failed", exc_info=sys.exc_info())
    assert len(line.splitlines()) == 1
    assert "KeyError: 'gone'" in json.loads(line)["traceback"]
