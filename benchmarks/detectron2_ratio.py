"""Detectron2's own predictor against a bundle made from the same weights, side by side.

    maskserve import detectron2 --config model.yaml --weights model_final.pth --out imported
    python benchmarks/detectron2_ratio.py --config model.yaml --weights model_final.pth \\
        --bundle imported --also balloon --also balloon-fast PHOTO...

Needs Detectron2, which has to be compiled from its source. Each measurement starts at the bytes of
a file and ends at boolean masks of the photo's own size. All variants take turns on the same photo;
photos take turns as well. Medians are printed, ratios of medians to Detectron2's, and how
far the answers of the same weights agree. Close other programs before you believe a number.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskserve.runtime.bundle import find_bundle, read_bundle
from maskserve.runtime.image_io import FILE_LIMITS, decode_image
from maskserve.runtime.openvino_engine import OpenVinoEngine, Precision
from maskserve.runtime.predictor import EnginePredictor

WARM_UP_ROUNDS = 2
MIN_SCORE = 0.3
"""Instances from here on are compared, and pasted by both sides."""


@dataclass(frozen=True, slots=True)
class Answer:
    """boxes float32 (N, 4), scores float32 (N,), classes int64 (N,), masks bool (N, H, W)."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]


Predict = Callable[[bytes], Answer]


def detectron2_predictor(config: Path, weights: Path) -> Predict:
    """DefaultPredictor, fed as its documentation says: BGR pixels."""
    cfg: Any = importlib.import_module("detectron2.config").get_cfg()
    cfg.merge_from_file(str(config))
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = MIN_SCORE
    predictor = importlib.import_module("detectron2.engine").DefaultPredictor(cfg)

    def predict(data: bytes) -> Answer:
        photo = decode_image(data, limits=FILE_LIMITS)
        found = predictor(np.ascontiguousarray(photo[:, :, ::-1]))["instances"]
        return Answer(
            found.pred_boxes.tensor.numpy(),
            found.scores.numpy(),
            found.pred_classes.numpy(),
            found.pred_masks.numpy(),
        )

    return predict


def bundle_predictor(name: str, precision: Precision, *, min_score: float | None) -> Predict:
    """What ``maskserve serve`` runs; None for the bundle's own threshold."""
    bundle = read_bundle(find_bundle(name))
    engine = OpenVinoEngine(bundle.model, precision=precision)
    predictor = EnginePredictor(engine, bundle.manifest)

    def predict(data: bytes) -> Answer:
        photo = decode_image(data, limits=FILE_LIMITS)
        found = predictor.predict(photo, min_score=min_score)
        return Answer(found.boxes_xyxy, found.scores, found.class_indices, found.masks)

    return predict


def time_in_turns(
    variants: dict[str, Predict], photos: Sequence[bytes], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of every round; each variant sees a photo once untimed before it is timed.

    OpenVINO prepares for every new size, and others have filled the processor's caches.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in track(range(-WARM_UP_ROUNDS, rounds), description="Rounds", transient=True):
        data = photos[number % len(photos)]
        for name, predict in variants.items():
            predict(data)
            start = time.perf_counter()
            predict(data)
            if number >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


@dataclass(slots=True)
class Agreement:
    """How an answer differs from Detectron2's, over all photos."""

    instances: int = 0
    missed: int = 0
    added: int = 0
    score: float = 0.0
    box_px: float = 0.0
    mask_ious: list[float] | None = None

    def add(self, reference: Answer, answer: Answer) -> None:
        """Match every reference instance with the one of its class whose box lies nearest.

        Scores within 1e-3 of the threshold may fall to either side of it.
        """
        self.mask_ious = self.mask_ious or []
        free = set(range(len(answer.scores)))
        for i, class_index in enumerate(reference.classes):
            self.instances += 1
            apart = {
                j: float(np.abs(answer.boxes[j] - reference.boxes[i]).max())
                for j in free
                if answer.classes[j] == class_index
            }
            j = min(apart, key=apart.__getitem__, default=-1)
            both = reference.masks[i] & answer.masks[j] if j >= 0 else np.zeros(1, np.bool_)
            if not both.any():
                self.missed += reference.scores[i] > MIN_SCORE + 1e-3
                continue
            free.remove(j)
            self.score = max(self.score, abs(float(answer.scores[j] - reference.scores[i])))
            self.box_px = max(self.box_px, apart[j])
            either = reference.masks[i] | answer.masks[j]
            self.mask_ious.append(both.sum() / either.sum())
        self.added += sum(answer.scores[j] > MIN_SCORE + 1e-3 for j in free)

    def row(self) -> tuple[str, ...]:
        ious = self.mask_ious or [float("nan")]
        return (
            str(self.instances),
            str(self.missed),
            str(self.added),
            f"{self.score:.4f}",
            f"{self.box_px:.2f}",
            f"{statistics.median(ious):.4f}",
            f"{min(ious):.4f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--config", type=Path, required=True, help="Detectron2's YAML")
    parser.add_argument("--weights", type=Path, required=True, help="its checkpoint")
    parser.add_argument("--bundle", required=True, help="imported from these two")
    parser.add_argument("--also", action="append", default=[], help="another bundle, to time")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    photos = [path.read_bytes() for path in arguments.photos]
    reference = detectron2_predictor(arguments.config, arguments.weights)
    same_weights = {
        f"{arguments.bundle}, {precision}": bundle_predictor(
            arguments.bundle, precision, min_score=MIN_SCORE
        )
        for precision in ("f32", "auto")
    }
    others = {
        f"{name}, auto": bundle_predictor(name, "auto", min_score=None) for name in arguments.also
    }

    console = Console()
    agreed = Table(
        "same weights", "instances", "missed", "added", "score", "box px", "mask IoU", "least IoU",
        title=f"Difference to Detectron2, scores from {MIN_SCORE}, {len(photos)} photos",
    )  # fmt: skip
    truths = [reference(data) for data in photos]
    for name, predict in same_weights.items():
        agreement = Agreement()
        for truth, data in zip(truths, photos, strict=True):
            agreement.add(truth, predict(data))
        agreed.add_row(name, *agreement.row())
    console.print(agreed)

    times = time_in_turns(
        {"Detectron2": reference, **same_weights, **others}, photos, arguments.rounds
    )
    table = Table(
        "from bytes to masks", "median, ms", "middle half", "times as fast",
        title=f"{arguments.rounds} rounds in turns",
        caption=f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f}",
    )  # fmt: skip
    for name, values in times.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        ratio = statistics.median(times["Detectron2"]) / median
        table.add_row(name, f"{median:.0f}", f"{low:.0f} to {high:.0f}", f"{ratio:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
