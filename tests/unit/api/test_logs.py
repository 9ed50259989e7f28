"""Log lines as JSON."""

from __future__ import annotations

import json
import logging
import subprocess
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


PROGRAM = """
import logging, threading, warnings
from maskserve.api.logs import set_up_logging

set_up_logging({level!r})
logging.getLogger("maskserve.x").info("of ours")
logging.getLogger("other").info("of no interest")
logging.getLogger("other").warning("of another package")
warnings.warn("deprecated")
remembered = {{}}
warnings.warn_explicit("12 bytes", UserWarning, "f", 1, "PIL.TiffImagePlugin", remembered)
assert not remembered.keys() - {{"version"}}
thread = threading.Thread(target=lambda: 1 / 0, name="t")
thread.start()
thread.join()
"""


def run(level: str) -> list[dict[str, str]]:
    """What a process logs, in which everything that writes to stderr happens once."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_all_of_the_process_is_json() -> None:
    ours, other, warning, thread = run("info")
    assert (ours["message"], other["message"]) == ("of ours", "of another package")
    assert warning["logger"] == "py.warnings"
    assert "deprecated" in warning["message"]
    assert thread["message"] == "thread t failed"
    assert "ZeroDivisionError" in thread["traceback"]


def test_the_level_holds_for_everything() -> None:
    assert [line["level"] for line in run("warning")] == ["warning", "warning", "error"]
    assert [line["level"] for line in run("error")] == ["error"]
