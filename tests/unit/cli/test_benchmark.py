from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


def test_tables_and_json(run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "speed.json"
    photo = ("--image", photos / "a.png", "--image", photos / "b.jpg")
    result = run(
        "benchmark", tiny_bundle, *photo, "--clients", "1,2", "--rounds", 2, "--json", target
    )
    assert result.returncode == 0, result.stderr
    for words in ("photos: 2 of 80 × 60", "drawn JPEG", "first start", "of the peak", "instances"):
        assert words in result.stdout
    document = json.loads(target.read_text())
    assert document["rounds"] == 2
    assert [entry["clients"] for entry in document["serving"]] == [1, 2, 1, 2]
    assert document["photos"] == [[80, 60, 2], [80, 60, 2]]


@pytest.mark.parametrize("clients", ["", "0", "1,two", "1,,2", "99"])
def test_clients_that_are_no_numbers(run: Run, tiny_bundle: Path, clients: str) -> None:
    result = run("benchmark", tiny_bundle, "--clients", clients)
    assert result.returncode == 2
    assert f"--clients: “{clients}” is not a list of numbers" in result.stderr


def test_a_photo_that_is_none_is_named(run: Run, tiny_bundle: Path, photos: Path) -> None:
    result = run("benchmark", tiny_bundle, "--image", photos / "notes.txt")
    assert result.returncode == 3
    assert "notes.txt" in result.stderr
