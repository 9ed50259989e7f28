"""More clients than the queue holds, and clients that do not behave."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image as PillowImage

from load_clients import PATH, Client, Crowd, percentile_s, statuses
from maskserve.benchmarking.server import ServerProcess
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import encode_image
from soak.conftest import Soak

MODEL = "balloon-fast"
CLIENTS = 24
DEADLINE_S = 20
FLAT_BYTES = 100e6
LARGEST_BYTES = 5e9
WAIT_S = 120
SAMPLE_S = 0.25


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    """Of several sizes and formats."""
    forms = (
        ((240, 320), "image/jpeg"),
        ((480, 640), "image/webp"),
        ((768, 1024), "image/jpeg"),
        ((600, 600), "image/png"),
        ((3000, 4000), "image/jpeg"),
    )
    photos = []
    for seed, (size, media_type) in enumerate(forms):
        scene, _ = render_balloons(size=(240, 320), count=5, seed=seed)
        scale = -(-size[0] // 240)
        large = scene.repeat(scale, axis=0).repeat(scale, axis=1)[: size[0], : size[1]]
        photos.append(encode_image(np.ascontiguousarray(large), media_type))
    return photos


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with five places."""
    environment = {"MASKSERVE_QUEUE_SIZE": "4", "MASKSERVE_DEADLINE_S": str(DEADLINE_S)}
    with ServerProcess([MODEL], environment=environment) as server:
        yield server


def memory_over(server: ServerProcess, seconds: float) -> list[int]:
    """Resident bytes, sampled while time passes."""
    samples = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(SAMPLE_S)
        memory = server.memory
        assert memory is not None
        samples.append(memory.resident_bytes)
    return samples


def growth_bytes(samples: Sequence[int]) -> int:
    """From the second quarter to the last: first the server must have seen every photo."""
    quarter = len(samples) // 4
    return int(np.median(samples[-quarter:]) - np.median(samples[quarter : 2 * quarter]))


def test_more_clients_than_the_queue_holds(
    soak: Soak, server: ServerProcess, photos: list[bytes], report: Callable[..., None]
) -> None:
    seconds = soak.choose(short=4, long=180)
    with Crowd(server, photos, clients=CLIENTS) as crowd:
        samples = memory_over(server, seconds)
        crowd.wait_for(answers=1)  # on a slow machine
    answers = crowd.answers
    report(
        clients=CLIENTS,
        places=5,
        answers=statuses(answers),
        answers_per_s=round(len(answers) / seconds, 1),
        p50_of_200_s=percentile_s(answers, 50),
        p99_of_200_s=percentile_s(answers, 99),
        p99_of_503_s=percentile_s(answers, 99, status=503),
        resident_mb=round(samples[-1] / 1e6),
        growth_mb=round(growth_bytes(samples) / 1e6),
    )
    assert {answer.status for answer in answers} == {200, 503}
    refusals = [answer for answer in answers if answer.status == 503]
    assert {answer.code for answer in refusals} == {"server_full"}
    assert all(answer.retry_after for answer in refusals)
    assert percentile_s(answers, 99) < DEADLINE_S
    assert growth_bytes(samples) < FLAT_BYTES
    # Every answer is in the log, under the id that the client chose.
    log = server.log
    assert all(f'"{answer.request_id}"' in log for answer in answers)


@pytest.mark.long
def test_whoever_heeds_retry_after_is_served(
    server: ServerProcess, photos: list[bytes], report: Callable[..., None]
) -> None:
    """Also where the others ask again before they should."""
    with (
        Crowd(server, photos[:2], clients=CLIENTS, pause_s=0.5) as crowd,
        Client(server, "polite") as client,
    ):
        waits_s = [polite_wait_s(client, photos[0]) for _ in range(10)]
    report(
        other_clients=CLIENTS,
        places=5,
        answers_of_others=statuses(crowd.answers),
        waited_s=[round(wait_s, 1) for wait_s in waits_s],
    )
    assert max(waits_s) < WAIT_S


def polite_wait_s(client: Client, photo: bytes) -> float:
    """How long it takes to get a photo answered, all tries together."""
    start = time.monotonic()
    while (answer := client.send(photo)).status == 503:
        assert time.monotonic() - start < WAIT_S
        assert answer.retry_after
        time.sleep(float(answer.retry_after))
    assert answer.status == 200
    return time.monotonic() - start


@pytest.mark.long
@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_the_largest_photos(accept: str, report: Callable[..., None]) -> None:
    """A few kilobytes make 50 million pixels; only so many of them are in memory at a time."""
    transparent = PillowImage.new("RGBA", (7071, 7071), (200, 100, 50, 128))
    buffer = BytesIO()
    transparent.save(buffer, "WEBP", lossless=True, method=0)
    with ServerProcess([MODEL]) as server:
        with Crowd(server, [buffer.getvalue()], clients=CLIENTS, accept=accept) as crowd:
            time.sleep(40)
        memory = server.memory
        assert memory
        report(
            clients=CLIENTS,
            bytes_of_the_photo=len(buffer.getvalue()),
            answers=statuses(crowd.answers),
            peak_mb=round(memory.peak_bytes / 1e6),
        )
    assert {answer.status for answer in crowd.answers} <= {200, 503, 504}
    assert memory.peak_bytes < LARGEST_BYTES


@pytest.mark.long
def test_a_deadline_that_passes(photos: list[bytes], report: Callable[..., None]) -> None:
    """Those that wait too long are told so, and those that are answered did not wait longer."""
    deadline_s = 0.3  # less than 17 photos take, wherever it runs
    environment = {"MASKSERVE_QUEUE_SIZE": "16", "MASKSERVE_DEADLINE_S": str(deadline_s)}
    with ServerProcess([MODEL], environment=environment) as server:
        with Crowd(server, photos[:3], clients=CLIENTS) as crowd:
            time.sleep(30)
        with Client(server, "alone") as alone:
            service_s = max(alone.send(photo).took_s for photo in photos[:3] * 2)
    answers = crowd.answers
    report(
        clients=CLIENTS,
        places=17,
        deadline_s=deadline_s,
        answers=statuses(answers),
        p99_of_200_s=percentile_s(answers, 99),
        p99_of_504_s=percentile_s(answers, 99, status=504),
    )
    assert {answer.status for answer in answers} == {200, 503, 504}
    assert {answer.code for answer in answers} == {"", "server_full", "deadline_passed"}
    # Decoding and answering are no waiting; many do so at a time on few cores.
    assert percentile_s(answers, 99) < deadline_s + CLIENTS * service_s + 1


def test_clients_that_do_not_behave(
    soak: Soak, server: ServerProcess, photos: list[bytes], report: Callable[..., None]
) -> None:
    """However many connections hang, others are served."""
    hanging = soak.choose(short=40, long=100)  # of each kind, and more than there are threads
    photo = photos[0]
    waits_s: dict[str, float] = {}
    with ExitStack() as stack:
        client = stack.enter_context(Client(server, "well-behaved", keep_alive=False))
        alone_s = max(client.send(photo).took_s for _ in range(3))
        for name, start_of_request in misbehaviour(photo).items():
            for _ in range(hanging):
                rude = stack.enter_context(connect(server))
                rude.sendall(start_of_request)
            answer = client.send(photo)
            waits_s[name] = round(answer.took_s, 2)
            assert answer.status == 200, (name, answer)
    report(hanging_of_each_kind=hanging, alone_s=round(alone_s, 2), waited_s=waits_s)
    assert max(waits_s.values()) < WAIT_S / 4
    assert "Traceback" not in server.log


def connect(server: ServerProcess) -> socket.socket:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=WAIT_S)


def misbehaviour(photo: bytes) -> dict[str, bytes]:
    """What the clients send before they fall silent, by what is wrong with it."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Type: image/jpeg\r\n".encode()
    return {
        "nothing": b"",
        "half a line": b"POST /v1/seg",
        "half a head": head,
        "half a body": head + f"Content-Length: {len(photo)}\r\n\r\n".encode() + photo[:100],
        "longer length than body": head + b"Content-Length: 1000000000\r\n\r\n" + photo,
        "shorter length than body": head + b"Content-Length: 10\r\n\r\n" + photo,
        "length that is no number": head + b"Content-Length: -5\r\n\r\n",
        "length of many digits": head + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        "two lengths": head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "endless chunk": head + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + photo[:100],
        "broken chunk": head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "noise": photo,
    }
