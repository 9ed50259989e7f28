"""Where the time of one photo goes, stage by stage: python benchmarks/stages.py PHOTO

Runs of all variants are interleaved on the same machine, after a warm-up; medians are printed,
and the ratio to the first variant. Close other programs before you believe a number.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maskserve.runtime.bundle import find_bundle, read_bundle
from maskserve.runtime.image_io import decode_image, encode_image
from maskserve.runtime.openvino_engine import OpenVinoEngine, Precision
from maskserve.runtime.postprocess import to_instances
from maskserve.runtime.preprocess import to_graph_input
from maskserve.runtime.render import draw

STAGES = ("decode", "resize", "network", "paste", "coverage", "draw", "encode")
VARIANTS: tuple[Precision, ...] = ("auto", "f32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", default="balloon", help="shipped model or bundle")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()

    bundle = read_bundle(find_bundle(arguments.model))
    manifest = bundle.manifest
    engines = {variant: OpenVinoEngine(bundle.model, precision=variant) for variant in VARIANTS}
    data = arguments.photo.read_bytes()
    resized = to_graph_input(decode_image(data), manifest.preprocess)
    times: dict[Precision, dict[str, list[float]]] = {v: defaultdict(list) for v in VARIANTS}
    found = 0
    for round_number in range(arguments.rounds + 3):
        for variant, engine in engines.items():
            # The other variant has filled the processor's caches with its own weights.
            engine.infer(resized, min_score=manifest.postprocess.min_score)
            marks = [time.perf_counter()]
            photo = decode_image(data)
            marks.append(time.perf_counter())
            resized = to_graph_input(photo, manifest.preprocess)
            marks.append(time.perf_counter())
            raw = engine.infer(resized, min_score=manifest.postprocess.min_score)
            marks.append(time.perf_counter())
            instances = to_instances(
                raw, manifest, resized=resized.shape[:2], image_size=photo.shape[:2]
            )
            marks.append(time.perf_counter())
            instances.coverage()
            marks.append(time.perf_counter())
            drawn = draw(photo, instances)
            marks.append(time.perf_counter())
            encode_image(drawn, "image/jpeg")
            marks.append(time.perf_counter())
            found = len(instances)
            if round_number >= 3:
                for stage, (start, end) in zip(STAGES, pairwise(marks), strict=True):
                    times[variant][stage].append((end - start) * 1e3)

    table = Table(
        "stage",
        *(f"{variant}, ms" for variant in VARIANTS),
        "ratio",
        title=f"{manifest.name}, {photo.shape[1]}x{photo.shape[0]} -> "
        f"{resized.shape[1]}x{resized.shape[0]}, {found} instances, "
        f"median of {arguments.rounds}",
        caption=f"{platform.machine()}, {os.cpu_count()} cores",
    )
    medians = {v: {s: statistics.median(times[v][s]) for s in STAGES} for v in VARIANTS}
    for variant in VARIANTS:
        medians[variant]["all"] = sum(medians[variant].values())
    for stage in (*STAGES, "all"):
        first, *others = (medians[variant][stage] for variant in VARIANTS)
        table.add_row(
            stage, *(f"{value:.1f}" for value in (first, *others)), f"{others[0] / first:.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
