"""``maskserve benchmark``."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from maskserve.cli.report import make_console, make_progress
from maskserve.core.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maskserve.benchmarking.benchmark import Benchmark

__all__ = ["benchmark"]

_MOST_CLIENTS = 16  # the server's default queue holds no more


def benchmark(
    model: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE", help="A shipped model or a bundle of yours.", show_default=False
        ),
    ],
    *,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A photo to send, by default the built-in example; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    clients: Annotated[
        str, typer.Option(metavar="N,N,…", help="How many clients send photos at a time.")
    ] = "1,2,4",
    rounds: Annotated[
        int,
        typer.Option(min=1, help="How often stages are timed; photos that each client sends."),
    ] = 30,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write all numbers as JSON there."),
    ] = None,
) -> None:
    """Measure how fast a model is on this machine.

    It times each stage of a photo, starts a server of its own and sends photos to it as one or
    more clients, and tells how long the server takes to start and how much memory it holds. Close
    other programs.

    Examples:

        maskserve benchmark balloon
        maskserve benchmark ./mine.zip --image photo.jpg --json speed.json
    """
    from maskserve.benchmarking.benchmark import run_benchmark
    from maskserve.runtime.files import write_file
    from maskserve.runtime.image_io import FILE_LIMITS, read_image

    counts = _parse_clients(clients)
    paths = image or [Path(str(files("maskserve") / "api" / "static" / "example.jpg"))]
    for path in paths:
        read_image(path, limits=FILE_LIMITS)  # so that a message names the file
    with make_progress() as progress:
        task = progress.add_task("")
        result = run_benchmark(
            model,
            [path.read_bytes() for path in paths],
            clients=counts,
            rounds=rounds,
            on_progress=lambda step, done, total: progress.update(
                task, description=step, completed=done, total=total
            ),
        )
    console = make_console()
    for part in _tables(result):
        console.print(part)
    if json_file is not None:
        write_file(json_file, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
        console.print(f"Written to {json_file}", soft_wrap=True)


def _parse_clients(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or max(counts) > _MOST_CLIENTS:
        raise ParameterError(
            f"--clients: “{text}” is not a list of numbers from 1 to {_MOST_CLIENTS}.",
            hint="For example: --clients 1,2,4",
        )
    return counts


def _tables(result: Benchmark) -> Iterator[Table | str]:
    yield _stages_table(result)
    share = result.floor_ms / result.stages["network"].median_ms
    yield (
        f"The network has {result.gmacs:.2f} GMAC and runs on {result.threads} threads in "
        f"{result.arithmetic}. These cores reach {result.peak_gmacs_per_s:.0f} GMAC/s, so "
        f"{result.floor_ms:.1f} ms is its floor: it works at {share:.0%} of the peak.\n"
    )
    yield _serving_table(result)
    yield f"Each client sent {result.rounds} photos, one after the other.\n"
    yield _process_table(result)
    load = "" if result.load is None else f", load {result.load:.1f} at the start"
    yield f"{result.machine}{load}"


def _right(title: str) -> Column:
    return Column(title, justify="right")


def _stages_table(result: Benchmark) -> Table:
    sizes = {f"{width} × {height}" for width, height, _ in result.photos}
    instances = sum(found for _, _, found in result.photos)
    table = Table(
        "stage",
        _right("median, ms"),
        _right("p95, ms"),
        title=f"{result.model}\nphotos: {len(result.photos)} of "
        f"{sizes.pop() if len(sizes) == 1 else 'several sizes'}\ninstances: {instances}",
    )
    for stage, times in result.stages.items():
        if stage == "all":
            table.add_section()
        table.add_row(stage, f"{times.median_ms:.1f}", f"{times.p95_ms:.1f}")
    return table


def _serving_table(result: Benchmark) -> Table:
    network_ms = result.stages["network"].median_ms
    names = {"image/jpeg": "drawn JPEG", "application/json": "JSON"}
    table = Table(
        "answer",
        _right("clients"),
        _right("median, ms"),
        _right("p95, ms"),
        _right("times the network"),
        _right("answers/s"),
        title="Whole HTTP requests",
    )
    for entry in result.serving:
        table.add_row(
            names[entry.answer],
            str(entry.clients),
            f"{entry.times.median_ms:.1f}",
            f"{entry.times.p95_ms:.1f}",
            f"{entry.times.median_ms / network_ms:.2f}",
            f"{entry.per_second:.1f}",
        )
    return table


def _process_table(result: Benchmark) -> Table:
    table = Table("server", _right("first start"), _right("next start"), title="Start and memory")
    first, again = result.first_start, result.next_start
    for name in ("listening", "ready", "answered"):
        first_s, again_s = (getattr(start, f"{name}_s") for start in (first, again))
        table.add_row(f"{name}, after s", f"{first_s:.2f}", f"{again_s:.2f}")
    if result.memory is not None:
        table.add_section()
        for name, value in (
            ("resident when ready, MB", result.memory.ready_mb),
            ("resident after all requests, MB", result.memory.after_mb),
            ("peak, MB", result.memory.peak_mb),
        ):
            table.add_row(name, "", f"{value:.0f}")
    return table
