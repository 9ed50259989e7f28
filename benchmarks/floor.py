"""How near networks come to what the cores can multiply, in both arithmetics, side by side.

    python benchmarks/floor.py PHOTO BUNDLE...

Bundles are names of shipped models or paths. Networks take turns on the photo, and nearly no
instance reaches a mask head. The floor is the network's multiply-accumulate operations over the
most that the cores do in a second in the same arithmetic; of 8-bit layers it is not known.
Close other programs before you believe a number.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maskserve.runtime.bundle import find_bundle, read_bundle
from maskserve.runtime.image_io import read_image
from maskserve.runtime.openvino_engine import (
    OpenVinoEngine,
    Precision,
    measure_cost,
    measure_peak,
)
from maskserve.runtime.preprocess import to_graph_input

MIN_SCORE = 0.99
PRECISIONS: tuple[Precision, ...] = ("f32", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photo", type=Path, metavar="PHOTO")
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()

    photo = read_image(arguments.photo)
    peaks = {precision: measure_peak(precision=precision) for precision in PRECISIONS}
    networks = []
    for name in arguments.bundles:
        bundle = read_bundle(find_bundle(name))
        image = to_graph_input(photo, bundle.manifest.preprocess)
        macs = measure_cost(bundle.model, image, min_score=MIN_SCORE).macs
        for precision in PRECISIONS:
            engine = OpenVinoEngine(bundle.model, precision=precision)
            networks.append((name, precision, macs, engine, image))
    times: list[list[float]] = [[] for _ in networks]
    for number in range(arguments.rounds + 1):
        for (*_, engine, image), spent in zip(networks, times, strict=True):
            start = time.perf_counter()
            engine.infer(image, min_score=MIN_SCORE)
            if number > 0:  # the first prepares for this size
                spent.append((time.perf_counter() - start) * 1e3)
    table = Table("network", "computes in", "GMAC", "cores, GMAC/s", "floor, ms", "median, ms")
    for (name, precision, macs, engine, _), spent in zip(networks, times, strict=True):
        peak = peaks[precision]
        table.add_row(
            name,
            engine.arithmetic,
            f"{macs / 1e9:.2f}",
            f"{peak / 1e9:.0f}",
            f"{macs / peak * 1e3:.0f}",
            f"{statistics.median(spent):.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
