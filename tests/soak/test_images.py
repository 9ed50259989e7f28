"""Broken images neither crash the decoder nor make the server answer 5xx."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image as PillowImage

import decode_worker
from image_mutations import bombs, mutation, sound_images
from maskserve.benchmarking.server import ServerProcess
from maskserve.runtime.bundle import shipped_bundles
from maskserve.runtime.image_io import DEFAULT_LIMITS, decode_image, encode_image
from soak.conftest import Soak

CORPUS = Path(__file__).parent / "corpus"

# The largest photo that is accepted, some times over: as stored, as RGB, as an array.
MOST_BYTES = 1.5e9
FLAT_BYTES = 60e6
EXTREME_SHAPES = ((1, 1), (1, 2000), (2000, 1), (2, 3), (20_000, 100), (7071, 7071))
REFUSALS = {413, 415, 422}


@dataclass
class Decoded:
    """What became of many images."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0
    peak_bytes: int = 0
    growth_bytes: int = 0

    def add(self, other: Decoded) -> None:
        self.outcomes += other.outcomes
        self.failures |= other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.growth_bytes = max(self.growth_bytes, other.growth_bytes)

    def figures(self) -> Mapping[str, object]:
        return {
            "images": sum(self.outcomes.values()),
            "outcomes": dict(self.outcomes.most_common()),
            "failures": len(self.failures),
            "slowest_s": round(self.slowest_s, 2),
            "peak_mb": round(self.peak_bytes / 1e6),
            "growth_mb": round(self.growth_bytes / 1e6, 1),
        }


def decode_in_process(*arguments: str) -> Decoded:
    """What became of some inputs; names the one at which the process died, if it did."""
    command = [sys.executable, decode_worker.__file__, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    *names, last = process.stdout.splitlines() or [""]
    if process.returncode == 0:
        found = json.loads(last)
        return Decoded(**found | {"outcomes": Counter(found["outcomes"])})
    assert last, process.stderr  # it died before the first input
    why = f"exit code {process.returncode}: {process.stderr[-2000:]}"
    return Decoded(failures={last: why}, outcomes=Counter(died=1, unknown=len(names)))


def decode_files(folder: Path) -> Decoded:
    return decode_in_process("files", *map(str, sorted(folder.iterdir())))


def test_mutations_through_the_decoder(soak: Soak, report: Callable[..., None]) -> None:
    count = soak.choose(short=2_000, long=100_000)
    share = soak.choose(short=1_000, long=5_000)  # of each process, so that a crash loses few
    found = Decoded()
    with ThreadPoolExecutor(2) as pool:
        parts = [
            pool.submit(decode_in_process, "mutations", *map(str, (soak.seed, i, i + share)))
            for i in range(0, count, share)
        ]
        for part in parts:
            found.add(part.result())
    report(**found.figures())
    for name in found.failures:
        soak.save(f"mutation-{soak.seed}-{name}", mutation(soak.seed, int(name)))
    assert not found.failures
    assert found.outcomes["decoded"] > 0.1 * count  # not all are broken at the first byte
    assert found.outcomes["image_undecodable"] > 0.3 * count
    assert found.peak_bytes < MOST_BYTES
    assert found.growth_bytes < FLAT_BYTES


def test_bombs(tmp_path: Path, report: Callable[..., None]) -> None:
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    found = decode_files(tmp_path)
    report(**found.figures())
    assert not found.failures
    assert found.slowest_s < decode_worker.LIMIT_S / 2
    assert found.peak_bytes < MOST_BYTES


@pytest.mark.usefixtures("soak")
def test_files_kept_from_earlier_runs() -> None:
    assert not decode_files(CORPUS).failures


@pytest.mark.parametrize("name", sound_images())
def test_sound_images_are_decoded(name: str) -> None:
    """Or the mutations would start from nothing."""
    image = decode_image(sound_images()[name], limits=DEFAULT_LIMITS)
    assert sorted(image.shape) == [3, 40, 56]
    assert image.std() > 10


def test_mutations_over_http(
    soak: Soak, tiny_server: ServerProcess, report: Callable[..., None]
) -> None:
    count = soak.choose(short=200, long=20_000)
    answers: Counter[str] = Counter()
    failures: dict[int, str] = {}
    resident_bytes = []
    peak_bytes = 0
    with requests.Session() as session:
        for index in range(count):
            data = mutation(soak.seed, index)
            answer = session.post(
                f"{tiny_server.url}/v1/segment",
                headers={"Accept": ("application/json", "image/jpeg", "image/png")[index % 3]},
                timeout=decode_worker.LIMIT_S,
                **as_request(data, way=index // 3 % 3),
            )
            if answer.ok:
                answers["ok"] += 1
            elif answer.status_code in REFUSALS:
                answers[answer.json()["code"]] += 1
            else:
                failures[index] = f"{answer.status_code}: {answer.text[:300]}"
                soak.save(f"mutation-{soak.seed}-{index}", data)
            memory = tiny_server.memory
            assert memory
            resident_bytes.append(memory.resident_bytes)
            peak_bytes = memory.peak_bytes
    growth = resident_bytes[-1] - resident_bytes[count // 5]
    report(
        images=count,
        answers=dict(answers.most_common()),
        failures=len(failures),
        growth_mb=round(growth / 1e6, 1),
        peak_mb=round(peak_bytes / 1e6),
    )
    assert not failures
    assert answers["ok"] > 0.1 * count
    assert growth < FLAT_BYTES
    assert "Traceback" not in tiny_server.log


@pytest.mark.long
@pytest.mark.parametrize("model", shipped_bundles())
def test_extreme_shapes(model: str, report: Callable[..., None]) -> None:
    """A pixel, a line, the largest photo: each has an answer in its own size."""
    seconds = {}
    with ServerProcess([model]) as server, requests.Session() as session:
        for height, width in EXTREME_SHAPES:
            pixels = np.full((height, width, 3), 127, dtype=np.uint8)
            for media_type in ("image/jpeg", "image/png"):
                answer = session.post(
                    f"{server.url}/v1/segment",
                    data=encode_image(pixels, media_type),
                    headers={"Accept": media_type},
                    timeout=600,
                )
                assert answer.status_code == 200, (height, width, answer.text[:300])
                with PillowImage.open(BytesIO(answer.content)) as drawn:
                    assert drawn.size == (width, height)
            seconds[f"{height} x {width}"] = round(answer.elapsed.total_seconds(), 2)
        memory = server.memory
    assert memory
    report(seconds=seconds, peak_mb=round(memory.peak_bytes / 1e6))
    assert memory.peak_bytes < 2 * MOST_BYTES


def as_request(data: bytes, *, way: int) -> dict[str, Any]:
    """A photo in one of the three ways, as arguments of requests."""
    if way == 0:
        return {"data": data}
    if way == 1:
        return {"files": {"image": data}}
    return {"json": {"image": base64.b64encode(data).decode()}}
