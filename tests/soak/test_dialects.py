"""Broken requests to every dialect make the server answer 4xx."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
import requests

from maskserve.benchmarking.server import ServerProcess
from request_mutations import Request, request_mutation, sound_requests
from soak.conftest import Soak

WAIT_S = 60
FLAT_BYTES = 60e6
# A store for jobs that is full is no fault of the server's.
ALLOWED = {507}


@pytest.mark.parametrize("number", range(len(sound_requests())))
def test_sound_requests_are_answered(tiny_server: ServerProcess, number: int) -> None:
    """Or the mutations would start from nothing."""
    with requests.Session() as session:
        answer = send(session, tiny_server, sound_requests()[number])
    assert answer.ok, answer.text


def test_mutations_of_requests(
    soak: Soak, tiny_server: ServerProcess, report: Callable[..., None]
) -> None:
    count = soak.choose(short=300, long=10_000)
    answers: Counter[int] = Counter()
    failures: dict[int, str] = {}
    before = tiny_server.memory
    with requests.Session() as session:
        for index in range(count):
            request = request_mutation(soak.seed, index)
            answer = send(session, tiny_server, request)
            answers[answer.status_code] += 1
            if answer.status_code >= 500 and answer.status_code not in ALLOWED:
                failures[index] = f"{request.path} {answer.status_code}: {answer.text[:300]}"
                soak.save(
                    f"request-{soak.seed}-{index}",
                    json.dumps([request.path, request.headers]).encode() + b"\n" + request.body,
                )
            if index == count // 5:
                before = tiny_server.memory
    after = tiny_server.memory
    assert before
    assert after
    growth_bytes = after.resident_bytes - before.resident_bytes
    report(
        requests=count,
        answers=dict(sorted(answers.items())),
        failures=len(failures),
        growth_mb=round(growth_bytes / 1e6, 1),
    )
    assert not failures
    assert answers[200] > 0.05 * count
    assert sum(number for status, number in answers.items() if status >= 400) > 0.3 * count
    assert growth_bytes < FLAT_BYTES
    assert "Traceback" not in tiny_server.log


def send(session: requests.Session, server: ServerProcess, request: Request) -> requests.Response:
    # As bytes: requests would refuse some values, and the server must not rely on that.
    headers = {name: value.encode() for name, value in request.headers.items()}
    return session.post(
        server.url + request.path, data=request.body, headers=headers, timeout=WAIT_S
    )
