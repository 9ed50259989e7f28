"""Two processes train as one would: losses, weights, files, and what an interruption leaves."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distributed_losses import train_in_float64
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.models import build_model, initialise
from maskserve.models.checkpoint import write_weights
from maskserve.runtime.image_io import write_image
from maskserve.training import read_settings, run, train, validator
from maskserve.training.photos import load_photos
from maskserve.training.record import read_record

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
TRAIN = ("maskserve", "train", "--data", "shapes")

TOP = """
init = "{init}"
steps = {steps}
validate_every = {validate_every}
batch_size = {batch_size}
workers = 0
precision = "f32"
val_fraction = 0.34
warmup_steps = {warmup_steps}
max_instances = 5
{more}

[preprocess]
short_side_px = 64
max_side_px = 96

[augment]
crop_px = 64
{augment}
"""
LIGHT = """
[design]
channels = 16
proposals = 8
sampled_boxes = 16
box_channels = 8
box_features = 16
mask_channels = [8]
"""
RESNET = """
model = "resnet50"
batch_norm = "learned"
[design]
depth = 50
stem_channels = 8
first_channels = 32
fpn_channels = 16
rpn_channels = [16]
box_features = [16, 16]
mask_channels = [8]
mask_features = 8
sampled_boxes = 16
"""
BACKGROUNDS = """
[backgrounds]
folder = "empty"
share = 0.7
"""


def _recipe(
    *,
    init: str = "none",
    steps: int = 6,
    validate_every: int = 1,
    batch_size: int = 4,
    warmup_steps: int = 0,
    more: str = LIGHT,
    augment: str = "",
) -> str:
    return TOP.format(
        init=init,
        steps=steps,
        validate_every=validate_every,
        batch_size=batch_size,
        warmup_steps=warmup_steps,
        more=more,
        augment=augment,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("work")
    write_via_dataset(folder / "shapes", train=9, val=1, size=(64, 96))
    noise = np.random.default_rng(0).integers(0, 256, (8, 80, 90, 3), dtype=np.uint8)
    for number, photo in enumerate(noise):
        write_image(folder / "empty" / f"{number}.png", photo)
    # In the warm-up the rate is so low that float32 is precise enough, see distributed_losses.
    warm = _recipe(init="start.safetensors", steps=8, warmup_steps=150)
    (folder / "warm.toml").write_text(warm)
    _write_start(folder / "start.safetensors", folder / "warm.toml")
    killed = _recipe(init="start.safetensors", steps=12, validate_every=3, warmup_steps=150)
    (folder / "killed.toml").write_text(killed)
    (folder / "light.toml").write_text(_recipe())
    empty = _recipe(batch_size=2, steps=16, more=BACKGROUNDS + LIGHT, augment="paste = 0.0")
    (folder / "empty.toml").write_text(empty)
    (folder / "learned.toml").write_text(_recipe(more=RESNET, steps=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield folder


def _write_start(path: Path, recipe: Path) -> None:
    """Weights as if they were trained: norms have statistics."""
    settings = read_settings(recipe, {})
    torch.manual_seed(1)
    model = build_model(
        settings.model, classes=1, preprocess=settings.preprocess, design=settings.design
    )
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.uniform_(buffer, -0.1, 0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.8, 1.2)
    write_weights(path, model.state_dict())


def _train_here(recipe: str, out: str, *, resume: bool = False) -> None:
    settings = read_settings(Path(recipe), {})
    train(settings, data=Path("shapes"), out=Path(out), resume=resume)


def _rows(run_folder: str) -> list[dict[str, float]]:
    with (Path(run_folder) / "results.csv").open(encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _assert_same_outcome(one: str, other: str) -> None:
    """Of float32: losses and weights hardly differ, by the measure of what training has changed.

    Rounding grows in training, the more the earlier a run was killed; the test in float64 is exact.
    """
    rows, other_rows = _rows(one), _rows(other)
    assert [row["step"] for row in rows] == [row["step"] for row in other_rows]
    for name in ("loss", "val_loss"):
        values = [row[name] for row in rows]
        assert [row[name] for row in other_rows] == pytest.approx(values, rel=1e-3), name
    settings = read_record(Path(one)).settings
    start = run._build_model(settings, load_photos(settings, Path("shapes")))
    initialise(start, settings.model, settings.init)
    weights, other_weights = (
        load_file(Path(name) / "weights.safetensors") for name in (one, other)
    )
    learned = {name for name, _ in start.named_parameters()}
    moved, apart = (
        torch.cat([(weights[name] - to[name]).flatten() for name in learned]).norm()
        for to in (start.state_dict(), other_weights)
    )
    assert apart < 0.05 * moved


@pytest.fixture(scope="module")
def undisturbed(workplace: Path) -> str:
    """A run of a single process."""
    _train_here("killed.toml", "undisturbed")
    return "undisturbed"


def test_two_machines_train_as_one_process_does(workplace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = (
        *(*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", f"localhost:{port}", "-m"),
        *(*TRAIN, "--config", "warm.toml", "--out", "joint"),
    )
    # Either has the photos and the recipe, but only one gets a run folder.
    second = workplace / "second"
    shutil.copytree("shapes", second / "shapes")
    for name in ("warm.toml", "start.safetensors"):
        shutil.copy(name, second)
    machines = [
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for folder in (workplace, second)
    ]
    _train_here("warm.toml", "alone")
    said = "".join(machine.communicate(timeout=300)[0] for machine in machines)
    assert [machine.returncode for machine in machines] == [0, 0], said
    owner = next(folder for folder in (workplace, second) if (folder / "joint").exists())
    assert sum((folder / "joint").exists() for folder in (workplace, second)) == 1
    _assert_same_outcome("alone", str(owner / "joint"))
    assert said.count("step 8: ") == said.count("Done.") == 1
    names = [{path.name for path in place.rglob("*")} for place in (Path("alone"), owner / "joint")]
    assert names[0] == names[1]


def test_each_loss_is_the_mean_over_all_processes(workplace: Path) -> None:
    """Also where a process has photos without objects only, and where norms learn."""
    recipes = ("light.toml", "empty.toml", "learned.toml")
    worker = Path(__file__).parents[1] / "distributed_losses.py"
    processes = subprocess.Popen(
        (*TORCHRUN, "--standalone", "--nproc-per-node", "2", worker, "shapes", *recipes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    alone = [train_in_float64(read_settings(Path(r), {}), Path("shapes")) for r in recipes]
    said, _ = processes.communicate(timeout=300)
    assert processes.returncode == 0, said
    for recipe, (steps, weights) in zip(recipes, alone, strict=True):
        joint_steps, joint_weights = torch.load(Path(recipe).with_suffix(".pt"))
        assert len(steps) == len(joint_steps)
        for step, joint_step in zip(steps, joint_steps, strict=True):
            # Lightning keeps what it shows in float32.
            assert joint_step == pytest.approx(step, rel=1e-6, abs=1e-9), recipe
        for name, tensor in weights.items():
            torch.testing.assert_close(joint_weights[name], tensor, rtol=1e-8, atol=1e-8)
        without_objects = [step["loss_mask"] == 0 for step in steps]
        assert any(without_objects) == (recipe == "empty.toml")


def _children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_that_is_killed_ends_the_other_and_one_process_goes_on(
    workplace: Path, undisturbed: str
) -> None:
    command = (sys.executable, "-m", *TRAIN, "--config", "killed.toml", "--out", "killed")
    parent = subprocess.Popen(
        (*command, "--devices", "2"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not Path("killed/last.ckpt").exists():
        assert parent.poll() is None, "the training ended before it was killed"
        time.sleep(0.02)
    os.kill(_children(parent.pid)[-1], signal.SIGKILL)
    _, said = parent.communicate(timeout=300)
    assert parent.returncode == 6
    assert "Traceback" not in said
    assert "Error: " in said
    _train_here("killed.toml", "killed", resume=True)
    _assert_same_outcome(undisturbed, "killed")


def test_two_processes_go_on_where_one_was_interrupted(
    workplace: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def fail_the_second_time(path: Path, weights: Any) -> None:
        if written:
            raise OSError("The disk is full")
        written.append(path)
        write_weights(path, weights)

    with monkeypatch.context() as patched:
        patched.setattr(validator, "write_weights", fail_the_second_time)
        with pytest.raises(OSError, match="full"):
            _train_here("killed.toml", "interrupted")
    resumed = subprocess.run(
        (
            *(sys.executable, "-m", *TRAIN, "--config", "killed.toml", "--out", "interrupted"),
            *("--devices", "2", "--resume"),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("Resuming") == 1
    _assert_same_outcome(undisturbed, "interrupted")
