"""Requests that schemathesis makes from the OpenAPI document: every answer is a documented one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import openapi_hooks
from conftest import write_tiny_bundle
from maskserve.benchmarking.server import ServerProcess
from soak.conftest import Soak

# A photo that fits the document may be refused for what is in it, so that valid data need not
# be accepted; invalid data must be refused.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


def test_openapi(
    soak: Soak, tiny_server: ServerProcess, tmp_path: Path, report: Callable[..., None]
) -> None:
    run_schemathesis(soak, tiny_server, tmp_path, report)


@pytest.mark.long
def test_openapi_with_a_key(soak: Soak, tmp_path: Path, report: Callable[..., None]) -> None:
    """Where the server asks for keys, each route refuses requests without one, as documented."""
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny")
    key = "a-key-of-the-tests-alone"
    environment = {"MASKSERVE_API_KEYS": key, "MASKSERVE_JOBS_DIR": str(tmp_path / "jobs")}
    with ServerProcess([bundle], environment=environment) as server:
        run_schemathesis(
            soak, server, tmp_path, report, "ignored_auth", header=f"Authorization: Bearer {key}"
        )


def run_schemathesis(
    soak: Soak,
    server: ServerProcess,
    folder: Path,
    report: Callable[..., None],
    *more_checks: str,
    header: str | None = None,
) -> None:
    results_path = folder / "results.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    command += [f"{server.url}/openapi/openapi.json", "--no-color"]
    command += ["--checks", ",".join((*CHECKS, *more_checks)), "--seed", str(soak.seed)]
    command += ["--max-examples", str(soak.choose(short=5, long=200))]
    command += ["--report", "json", "--report-json-path", str(results_path)]
    command += ["--header", header] if header else []
    # A request that is too large is refused, too.
    (folder / "schemathesis.toml").write_text(
        '[checks.negative_data_rejection]\nexpected-statuses = ["4xx"]\n'
    )
    hooks = {
        "SCHEMATHESIS_HOOKS": openapi_hooks.__name__,
        "PYTHONPATH": str(Path(openapi_hooks.__file__).parent),
    }
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,  # it keeps files where it runs
        env=os.environ | hooks,
    )
    assert results_path.is_file(), process.stderr
    results = json.loads(results_path.read_text())
    judged: Counter[str] = Counter()
    for phases in results["valid_rates"].values():
        for counts in phases.values():
            judged.update(counts)
    report(
        operations=results["operations"]["tested"],
        cases=results["test_cases"]["generated"],
        valid_cases=dict(judged),
        failures=results["test_cases"]["unique_failures"],
    )
    if process.returncode:
        # With the requests as curl commands.
        soak.save("openapi.txt", process.stdout.encode())
    assert not results["failures"], process.stdout[-20_000:]
    assert process.returncode == 0, process.stdout[-20_000:]
    assert results["operations"]["tested"] == results["operations"]["total"]
    assert results["test_cases"]["generated"] >= soak.choose(short=300, long=2_000)
    assert judged["accepted"] > 0
