"""What a training step of the light model takes on this CPU, and what three shortcuts save.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --config recipes/balloon-fast.toml --steps 20
    OMP_NUM_THREADS=2 python benchmarks/training_step.py --precision f32

The shortcuts are the gradient of strided depthwise convolutions in bfloat16
(``maskserve.models.depthwise``), RoIAlign by rows (``maskserve.models.pyramid``) and memory that
is kept between steps (``maskserve.runtime.allocator``). Each way is a process of its own, and they
take turns, step by step, on photos of noise with as many squares as ``--instances`` says; loading
photos is not part of it. One thread, unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.ops import MultiScaleRoIAlign

from maskserve.core.manifest import Preprocess
from maskserve.models import build_model
from maskserve.runtime.allocator import keep_large_blocks
from maskserve.runtime.memory import process_memory
from maskserve.training.config import TrainSettings, read_settings
from maskserve.training.data import Target
from maskserve.training.exactness import propose_in_float32

PLAIN = "torch and torchvision alone"


@dataclass(frozen=True)
class Way:
    """How steps are made."""

    by_rows: bool = False
    halving: bool = False
    keeping: bool = False


WAYS = {
    PLAIN: Way(),
    "RoIAlign by rows": Way(by_rows=True),
    "strided depthwise": Way(halving=True),
    "memory kept": Way(keeping=True),
    "all three, as trained": Way(by_rows=True, halving=True, keeping=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, help="a recipe of a light model")
    parser.add_argument("--precision", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--steps", type=int, default=10, help="of each kind")
    parser.add_argument("--instances", type=int, default=6, help="in a photo")
    arguments = parser.parse_args()

    settings = read_settings(arguments.config, {"precision": arguments.precision})
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    peaks: dict[str, str] = {}
    with start_processes(settings, arguments.instances) as processes:
        for number in range(arguments.steps + 2):
            for name, process in processes.items():
                process.send("step")
                took, peaks[name] = process.recv()
                if number > 1:  # two for warming up
                    seconds[name].append(took)

    table = Table("step", "s, median", "s, least to most", "ratio", "peak memory, MB")
    for name, times in seconds.items():
        ratio = median(times) / median(seconds[PLAIN])
        spread = f"{min(times):.2f} to {max(times):.2f}"
        table.add_row(name, f"{median(times):.2f}", spread, f"{ratio:.2f}", peaks[name])
    side = settings.augment.crop_px
    table.caption = (
        f"Batches of {settings.batch_size} crops of {side} px, {settings.model}, "
        f"{settings.precision}, {thread_count()} threads."
    )
    Console().print(table)


def thread_count() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


@contextmanager
def start_processes(settings: TrainSettings, instances: int) -> Iterator[dict[str, Connection]]:
    """One for each way, which makes a step when told so and answers as :func:`make_steps` says."""
    context = get_context("spawn")
    ends = {}
    for name, way in WAYS.items():
        ends[name], other = context.Pipe()
        arguments = (other, settings, way, instances)
        context.Process(target=make_steps, args=arguments, daemon=True).start()
        other.close()  # or a process that was killed would be waited for
    yield ends
    for end in ends.values():
        end.send("end")


def make_steps(requests: Connection, settings: TrainSettings, way: Way, instances: int) -> None:
    """Answer each request with the seconds of a step, and the most memory so far in MB."""
    torch.set_num_threads(thread_count())
    if way.keeping:
        keep_large_blocks()
    photos, targets = make_batch(settings, instances=instances)
    step = make_step(settings, way)
    while requests.recv() == "step":
        started = time.perf_counter()
        step(photos, targets)
        took = time.perf_counter() - started
        memory = process_memory()
        requests.send((took, f"{memory.peak_bytes / 2**20:.0f}" if memory else "not known"))


def make_batch(settings: TrainSettings, *, instances: int) -> tuple[list[Tensor], list[Target]]:
    """Photos of noise, and squares in them of all sizes."""
    torch.manual_seed(0)
    side = settings.augment.crop_px
    photos = [torch.rand(3, side, side) for _ in range(settings.batch_size)]
    targets: list[Target] = []
    for number in range(settings.batch_size):
        sides = torch.logspace(1.2, 2.4, instances).round()[:, None]
        corners = (torch.rand(instances, 2) * (side - sides)).round()
        boxes = torch.cat([corners, corners + sides], dim=1)
        masks = torch.zeros(instances, side, side, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        labels = torch.ones(instances, dtype=torch.int64)
        targets.append({"example": number, "boxes": boxes, "labels": labels, "masks": masks})
    return photos, targets


def make_step(settings: TrainSettings, way: Way) -> Callable[[list[Tensor], list[Target]], None]:
    """A step of a model of its own: losses and their gradients under autocast, and the update."""
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess(), design=settings.design)
    assert isinstance(model, MaskRCNN)
    model.to(memory_format=torch.channels_last)
    propose_in_float32(model)
    if not way.by_rows:
        for name in ("box_roi_pool", "mask_roi_pool"):
            (grid, _) = getattr(model.roi_heads, name).output_size
            setattr(model.roi_heads, name, MultiScaleRoIAlign(["0", "1", "2", "3"], grid, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16")
    plain = mock.patch("maskserve.models.backbones.trains_in_bfloat16", new=says_no)

    def step(photos: list[Tensor], targets: list[Target]) -> None:
        torch.manual_seed(0)  # the same anchors and boxes are drawn in all ways
        with autocast, nullcontext() if way.halving else plain:
            loss = torch.stack(list(model(photos, targets).values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def says_no(features: Tensor) -> bool:  # noqa: ARG001
    """Where a Mock would hold on to the features, and with them to a step's memory."""
    return False


if __name__ == "__main__":
    main()
