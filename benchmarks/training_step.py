"""What a training step of the light model takes on this CPU, and what its two shortcuts save.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --config recipes/balloon-fast.toml --steps 20

The shortcuts are the gradient of strided depthwise convolutions in bfloat16
(``maskserve.models.depthwise``) and RoIAlign by rows (``maskserve.models.pyramid``). Steps with
and without them take turns, on photos of noise with as many squares as ``--instances`` says;
loading photos is not part of it. One thread, unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
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
from maskserve.training.config import TrainSettings, read_settings
from maskserve.training.data import Target
from maskserve.training.exactness import propose_in_float32

PLAIN = "torch and torchvision alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, help="a recipe of a light model")
    parser.add_argument("--steps", type=int, default=10, help="of each kind")
    parser.add_argument("--instances", type=int, default=6, help="in a photo")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    settings = read_settings(arguments.config, {})
    photos, targets = make_batch(settings, instances=arguments.instances)
    ways = {
        PLAIN: make_step(settings, by_rows=False, halving=False),
        "RoIAlign by rows": make_step(settings, by_rows=True, halving=False),
        "strided depthwise": make_step(settings, by_rows=False, halving=True),
        "both, as trained": make_step(settings, by_rows=True, halving=True),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(arguments.steps + 1):
        for way, step in ways.items():
            started = time.perf_counter()
            step(photos, targets)
            if number > 0:  # the first is for warming up
                seconds[way].append(time.perf_counter() - started)

    table = Table("step", "s, median", "s, least to most", "ratio")
    for way, times in seconds.items():
        ratio = median(times) / median(seconds[PLAIN])
        spread = f"{min(times):.2f} to {max(times):.2f}"
        table.add_row(way, f"{median(times):.2f}", spread, f"{ratio:.2f}")
    side = settings.augment.crop_px
    table.caption = f"Batches of {settings.batch_size} crops of {side} px, {settings.model}."
    Console().print(table)


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


def make_step(
    settings: TrainSettings, *, by_rows: bool, halving: bool
) -> Callable[[list[Tensor], list[Target]], None]:
    """A step of a model of its own: losses and their gradients under autocast, and the update."""
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess(), design=settings.design)
    assert isinstance(model, MaskRCNN)
    model.to(memory_format=torch.channels_last)
    propose_in_float32(model)
    if not by_rows:
        for name in ("box_roi_pool", "mask_roi_pool"):
            (grid, _) = getattr(model.roi_heads, name).output_size
            setattr(model.roi_heads, name, MultiScaleRoIAlign(["0", "1", "2", "3"], grid, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)

    plain = mock.patch("maskserve.models.backbones.trains_in_bfloat16", return_value=False)

    def step(photos: list[Tensor], targets: list[Target]) -> None:
        torch.manual_seed(0)  # the same anchors and boxes are drawn in all ways
        with torch.autocast("cpu", torch.bfloat16), nullcontext() if halving else plain:
            loss = torch.stack(list(model(photos, targets).values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
