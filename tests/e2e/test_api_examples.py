"""The examples in docs/api.md, run as they stand against a server with a shipped model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskserve.runtime.image_io import read_image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the examples are for POSIX")

REPOSITORY = Path(__file__).parents[2]
PHOTO = REPOSITORY / "src" / "maskserve" / "api" / "static" / "example.jpg"
PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"
WAIT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "maskserve", "serve", "--model", "balloon-fast", "--port", "0"],
            stderr=stderr,
            env={**os.environ, "MASKSERVE_DRAIN_S": "0"},
        )
    try:
        for _ in range(WAIT_S * 20):
            if "ready: balloon-fast" in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        message: str = json.loads(log.read_text().splitlines()[0])["message"]
        yield message.removeprefix("listening on ")
    finally:
        process.terminate()
        process.wait(WAIT_S)


def example(language: str) -> str:
    """The one example of a language, which has all that the page tells in it."""
    examples = PAGE[PAGE.index("\n## Examples\n") : PAGE.index("\n## Models\n")]
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", examples, flags=re.DOTALL | re.MULTILINE)
    return str(found)


def run(folder: Path, command: list[str], file: str, text: str, *, server: str) -> str:
    """What it prints, in a folder with a photo."""
    assert ADDRESS in text
    (folder / file).write_text(text.replace(ADDRESS, server), encoding="utf-8")
    shutil.copy(PHOTO, folder / "photo.jpg")
    done = subprocess.run(
        [*command, file], cwd=folder, capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_drawn(path: Path) -> None:
    drawn, photo = read_image(path), read_image(PHOTO)
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(server: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    printed = run(
        tmp_path, [bash, "-euo", "pipefail"], "example.sh", example("bash"), server=server
    )
    bodies, headers = printed.split("HTTP/1.1 ")
    decoder, answers, at = json.JSONDecoder(), [], 0
    while at < len(bodies):
        answer, at = decoder.raw_decode(bodies, at)
        answers.append(answer)
    models, none, polygons, rles = answers
    assert models["default"] == "balloon-fast"
    assert "mask" not in none["instances"][0]
    assert polygons["instances"][0]["mask"][0]
    assert rles["instances"][0]["mask"]["counts"]
    assert none["coverage"]["masked_px"] >= rles["coverage"]["masked_px"] > 0
    assert headers.startswith("200")
    assert f"X-Masked-Percent: {rles['coverage']['masked_percent']:.4f}" in headers
    check_drawn(tmp_path / "splash.png")


def test_python(server: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-W", "ignore:__array__:DeprecationWarning"]
    printed = run(tmp_path, command, "example.py", example("python"), server=server)
    assert re.fullmatch(
        r"models: balloon-fast\n[1-9][\d.]* % masked\n[1-9][\d.]* % masked\n", printed
    )
    check_drawn(tmp_path / "masked.jpg")


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_javascript(server: str, tmp_path: Path) -> None:
    printed = run(tmp_path, ["node"], "example.mjs", example("js"), server=server)
    percent = r"([1-9][\d.]*) % masked"
    found = re.fullmatch(
        rf"models: balloon-fast\n{percent}, [1-9]\d* instances\n{percent}\n", printed
    )
    assert found, printed
    assert float(found[1]) == float(found[2])
    check_drawn(tmp_path / "masked.jpg")


def test_a_refusal_is_told_as_the_page_says(server: str, tmp_path: Path) -> None:
    text = example("python").replace('"min_score": 0.5', '"min_score": 5').replace(ADDRESS, server)
    (tmp_path / "example.py").write_text(text, encoding="utf-8")
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bad_parameter: min_score: must be less than or equal to 1")
