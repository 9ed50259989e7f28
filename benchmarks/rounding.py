"""What this CPU's quickest arithmetic, such as bfloat16, changes in the answers of float32.

    python benchmarks/rounding.py BUNDLE PHOTO...

A bundle is the name of a shipped model or a path. Every instance of float32 is compared with the
one in the other answer whose mask overlaps its own most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from maskserve.runtime.bundle import find_bundle, read_bundle
from maskserve.runtime.image_io import read_image
from maskserve.runtime.openvino_engine import OpenVinoEngine
from maskserve.runtime.predictor import EnginePredictor

MIN_SCORE = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--min-score", type=float, default=MIN_SCORE)
    arguments = parser.parse_args()

    bundle = read_bundle(find_bundle(arguments.bundle))
    exact, quick = (
        EnginePredictor(OpenVinoEngine(bundle.model, precision=precision), bundle.manifest)
        for precision in ("f32", "auto")
    )
    counts = np.zeros(2, dtype=np.int64)
    ious: list[float] = []
    moves: list[float] = []
    for path in arguments.photos:
        photo = read_image(path)
        true, found = (p.predict(photo, min_score=arguments.min_score) for p in (exact, quick))
        counts += len(true), len(found)
        if len(true) and len(found):
            overlap = np.asarray(coco_mask.iou(true.rles(), found.rles(), [False] * len(found)))
            ious += overlap.max(axis=1).tolist()
            moves += np.abs(true.scores - found.scores[overlap.argmax(axis=1)]).tolist()
        else:
            ious += [0.0] * len(true)
    table = Table("", "mean", "worst")
    table.add_row("instances in float32, and here", f"{counts[0]}", f"{counts[1]}")
    if ious:
        table.add_row("mask IoU", f"{np.mean(ious):.4f}", f"{np.min(ious):.3f}")
    if moves:
        table.add_row("score moves by", f"{np.mean(moves):.4f}", f"{np.max(moves):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
