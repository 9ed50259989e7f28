"""How long a photo spends in each stage."""

from __future__ import annotations

import time

from maskserve.api.stopwatch import STAGES, Stopwatch


def test_stages_that_were_not_reached_took_no_time() -> None:
    assert Stopwatch().spent_ms == dict.fromkeys(STAGES, 0.0)


def test_spans_follow_one_another_and_end_now() -> None:
    begin_ns = time.time_ns()
    stopwatch = Stopwatch()
    with stopwatch.stage("decode"):
        time.sleep(0.002)
    stopwatch.add(infer=0.3, paste=0.1)
    end_ns = time.time_ns()
    decode, infer, paste = stopwatch.spans
    assert [span.stage for span in stopwatch.spans] == ["decode", "infer", "paste"]
    assert begin_ns <= decode.start_ns < decode.end_ns <= end_ns
    assert decode.end_ns - decode.start_ns >= 2_000_000
    assert infer.end_ns == paste.start_ns
    assert infer.end_ns - infer.start_ns == 300_000
    assert paste.end_ns - paste.start_ns == 100_000
    assert decode.end_ns <= paste.end_ns <= end_ns


def test_the_total_is_more_than_its_parts() -> None:
    stopwatch = Stopwatch()
    with stopwatch.stage("draw"):
        time.sleep(0.001)
    spent_ms = stopwatch.stop()
    assert spent_ms["total"] >= spent_ms["draw"] >= 1
    assert spent_ms is stopwatch.spent_ms
