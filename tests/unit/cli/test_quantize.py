from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2

from maskserve.datasets.balloon_photo import render_balloon_photo
from maskserve.runtime.bundle import read_manifest

Run = Callable[..., CompletedProcess[str]]


def test_it_says_what_became_of_the_answers(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        image, _ = render_balloon_photo(size=(384, 512), count=6, seed=seed)
        cv2.imwrite(str(photos / f"{seed}.png"), image[..., ::-1])
    out = tmp_path / "twin.zip"
    done = run("quantize", "balloon-fast", str(photos), "--out", str(out), "--name", "twin")
    assert done.returncode == 0, done.stderr
    assert read_manifest(out).name == "twin"
    assert "with the model “twin”: 46 of 85 layers compute with integers." in done.stdout
    assert "On 1 photo that it was not calibrated on: " in done.stdout


def test_too_few_photos(run: Run, tmp_path: Path) -> None:
    image, _ = render_balloon_photo(size=(96, 128), count=1, seed=0)
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), image)
    done = run("quantize", "balloon-fast", str(photo), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "1 photos are too few" in done.stderr
