"""The whole way: train, be killed, resume, export, serve, post a photo."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from safetensors.torch import load_file

from maskserve.core import Manifest, Preprocess
from maskserve.core.masks import decode_rle
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.models import build_model
from maskserve.models.checkpoint import write_weights

MASKSERVE = (sys.executable, "-m", "maskserve")

RECIPE = """
name = "shapes"
init = "start.safetensors"
steps = 6
validate_every = 2
batch_size = 1
workers = 0
val_fraction = 0.25
precision = "f32"

[preprocess]
short_side_px = 96
max_side_px = 160

[augment]
crop_px = 96
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_via_dataset(folder / "shapes", train=4, val=1)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    _write_start(folder / "start.safetensors")
    return folder


def _write_start(path: Path) -> None:
    """Random weights that take nearly everything for background.

    A model that was hardly trained would score every box about 0.5, and then rounding decides
    which of hundreds of equals are given: two engines could not be compared. This one finds
    nothing of score 0.05 or more, as an honest beginner should, and gives all at score 0.
    """
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess())
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([6.0, 0.0]))
    write_weights(path, model.state_dict())


def _command(*words: str) -> list[str]:
    return [*MASKSERVE, *words]


def _train(run: str, *more: str) -> list[str]:
    return _command("train", "--data", "shapes", "--config", "recipe.toml", "--out", run, *more)


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, "the training ended before it was killed"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def resumed_run(workplace: Path) -> Path:
    """A run that was killed without warning after its first checkpoint, and resumed."""
    process = subprocess.Popen(
        _train("killed"), cwd=workplace, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for(workplace / "killed" / "last.ckpt", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = _run(_train("killed", "--resume"), workplace)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming" in resumed.stderr
    return workplace / "killed"


def test_a_killed_run_ends_like_one_that_was_left_alone(resumed_run: Path, workplace: Path) -> None:
    undisturbed = _run(_train("whole"), workplace)
    assert undisturbed.returncode == 0, undisturbed.stderr
    resumed = load_file(resumed_run / "weights.safetensors")
    whole = load_file(workplace / "whole" / "weights.safetensors")
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert (resumed[name] - tensor).abs().max() < 1e-4, name
    with (resumed_run / "results.csv").open(encoding="utf-8") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 6
    for picture in ("curves.png", "gallery.jpg", "report.html"):
        assert (resumed_run / picture).stat().st_size > 1000


def test_a_run_is_not_overwritten(resumed_run: Path, workplace: Path) -> None:
    again = _run(_train(resumed_run.name), workplace)
    assert again.returncode == 6
    assert "already holds a run" in again.stderr


def test_resuming_with_other_settings_is_refused(resumed_run: Path, workplace: Path) -> None:
    changed = _run(_train(resumed_run.name, "--resume", "--seed", "5"), workplace)
    assert changed.returncode == 6
    assert "settings differ" in changed.stderr


@pytest.fixture(scope="module")
def bundle(resumed_run: Path, workplace: Path) -> Path:
    exported = _run(
        _command(
            "export",
            resumed_run.name,
            "--out",
            "shapes.zip",
            "--licence",
            "CC0-1.0",
        ),
        workplace,
    )
    assert exported.returncode == 0, exported.stderr
    return workplace / "shapes.zip"


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[str]:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            _command("serve", "--model", str(bundle), "--port", "0"), stderr=stderr
        )
    try:
        yield _wait_until_ready(process, log)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the server logs, once it says that it is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        address = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if address and requests.get(f"{address[0]}/readyz", timeout=5).ok:
            return address[0]
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_bundle_serves(server: str, workplace: Path) -> None:
    photo = next((workplace / "shapes" / "val").glob("*.png")).read_bytes()

    answer = requests.post(
        f"{server}/v1/segment",
        params={"min_score": "0"},
        data=photo,
        headers={"Content-Type": "image/png"},
        timeout=30,
    )

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["model"]["name"] == "shapes"
    masks = [decode_rle(instance["mask"]) for instance in body["instances"]]
    assert body["coverage"]["masked_px"] == np.any(masks, axis=0).sum() > 0
    listed = requests.get(f"{server}/v1/models/shapes", timeout=5).json()
    assert listed["licence"] == "CC0-1.0"


def test_evaluate_measures_a_run_and_its_bundle(
    resumed_run: Path, bundle: Path, workplace: Path
) -> None:
    metrics = []
    for model, out in ((resumed_run.name, "of-run"), (bundle.name, "of-bundle")):
        done = _run(
            _command("evaluate", model, "--data", "shapes", "--out", out, "--precision", "f32"),
            workplace,
        )
        assert done.returncode == 0, done.stderr
        metrics.append(json.loads((workplace / out / "metrics.json").read_text(encoding="utf-8")))
    of_run, of_bundle = metrics
    assert of_run["instances"] == of_bundle["instances"] == 3
    for kind in ("bbox", "segm"):
        assert of_run[kind]["AP"] == pytest.approx(of_bundle[kind]["AP"], abs=0.5)


def test_manifest_tells_where_the_weights_come_from(bundle: Path) -> None:
    from maskserve.runtime.bundle import read_bundle  # noqa: PLC0415

    manifest: Manifest = read_bundle(bundle).manifest
    assert manifest.classes == ("shapes",)
    assert manifest.provenance.settings["steps"] == 6
    assert manifest.provenance.seed == 0
    assert set(manifest.tool_versions) >= {"torch", "openvino", "maskserve"}
    assert "1 validation photo" in manifest.metrics
