from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from maskserve.benchmarking.benchmark import ANSWERS, Benchmark, run_benchmark
from maskserve.benchmarking.stages import STAGES


@pytest.fixture
def steps() -> list[str]:
    return []


@pytest.fixture
def result(tiny_bundle: Path, png: bytes, steps: list[str]) -> Benchmark:
    return run_benchmark(
        tiny_bundle,
        [png],
        clients=(1, 2),
        rounds=3,
        on_progress=lambda step, _done, _total: steps.append(step),
    )


def test_everything_is_measured_once(result: Benchmark, steps: list[str]) -> None:
    assert result.model == "tiny 1"
    assert result.photos == [(80, 60, 2)]
    assert tuple(result.stages) == (*STAGES, "all")
    assert result.stages["all"].median_ms >= result.stages["network"].median_ms
    assert all(0 < times.median_ms <= times.p95_ms for times in result.stages.values())
    assert [(x.answer, x.clients, x.requests) for x in result.serving] == [
        (answer, clients, 3 * clients) for answer in ANSWERS for clients in (1, 2)
    ]
    for start in (result.first_start, result.next_start):
        assert 0 < start.listening_s < start.ready_s < start.answered_s
    assert result.gmacs == 0  # the tiny graph computes no products
    assert result.floor_ms == 0
    assert result.peak_gmacs_per_s > 0
    assert (result.memory is not None) == (sys.platform == "linux")
    assert list(dict.fromkeys(steps)) == [
        "Timing stages",
        "Counting operations",
        "Starting the server",
        "Sending photos",
    ]
    document = json.loads(json.dumps(result.to_dict()))
    assert document["stages"]["network"]["median_ms"] == result.stages["network"].median_ms
    assert document["serving"][0]["answer"] == "image/jpeg"
