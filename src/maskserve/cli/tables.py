"""``maskserve predict --tables``: many photos to Parquet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import typer
from rich.progress import Progress
from rich.table import Column, Table

from maskserve.cli.exit_codes import exit_code_of
from maskserve.cli.extras import batch_extra, ray_extra
from maskserve.cli.report import make_console, make_progress
from maskserve.core.errors import ImageError
from maskserve.runtime.style import Style

if TYPE_CHECKING:
    from maskserve.batch.run import PartSummary, Run
    from maskserve.runtime.bundle import Bundle

__all__ = ["Place", "write_tables"]

Place = Literal["here", "ray"]
"""Where photos are looked at: in this process, or by the actors of a Ray cluster."""


def write_tables(
    inputs: Sequence[str],
    out: str,
    *,
    model: str,
    min_score: float | None,
    pictures: Style | None,
    part_photos: int,
    on: Place,
    actors: int | None,
) -> None:
    """Begin a run, or go on with it, and say at its end what came out.

    Raises:
        typer.Exit: Photos could not be used; the tables say which, and why.
        MaskserveError: As ``open_run`` and ``PartWorker`` raise it.
    """
    with batch_extra():
        from maskserve.batch.run import open_run, settings_of
    from maskserve.runtime.bundle import find_bundle, read_bundle

    bundle = read_bundle(find_bundle(model))
    settings = settings_of(
        inputs, bundle.manifest, min_score=min_score, pictures=pictures, part_photos=part_photos
    )
    with make_progress() as progress:
        task = progress.add_task("listing", total=None)
        run = open_run(
            out, settings, on_listed=lambda photos: progress.update(task, completed=photos)
        )
        summaries = run.done()
        before = sum(summary.photos for summary in summaries.values())
        todo = [part for part in range(run.parts) if part not in summaries]
        progress.update(task, description="photos", total=run.photos, completed=before)
        progress.reset(task, total=run.photos, completed=before)
        start = time.perf_counter()
        if todo and on == "ray":
            for summary in _work_on_ray(run, bundle, todo, actors):
                summaries[summary.part] = summary
                progress.advance(task, summary.photos)
        elif todo:
            for summary in _work_here(run, bundle, todo, progress):
                summaries[summary.part] = summary
        elapsed_s = time.perf_counter() - start
        run.tidy()
    _print(run, list(summaries.values()), before=before, elapsed_s=elapsed_s)
    if any(summary.failed for summary in summaries.values()):
        raise typer.Exit(exit_code_of(ImageError("")))


def _work_here(
    run: Run, bundle: Bundle, parts: Sequence[int], progress: Progress
) -> Iterator[PartSummary]:
    from maskserve.batch.worker import PartWorker
    from maskserve.runtime.model_cache import user_cache
    from maskserve.runtime.predictor import EnginePredictor
    from maskserve.runtime.registry import load_engine

    engine = load_engine(bundle, cache=user_cache())
    worker = PartWorker(run, EnginePredictor(engine, bundle.manifest))
    (task,) = progress.task_ids
    for part in parts:
        yield worker.work(part, on_photo=lambda: progress.advance(task))


def _work_on_ray(
    run: Run, bundle: Bundle, parts: Sequence[int], actors: int | None
) -> Iterator[PartSummary]:
    with ray_extra():
        from maskserve.cluster.batch import work_on_ray
    return work_on_ray(run, bundle, parts, actors=actors)


def _print(run: Run, summaries: Sequence[PartSummary], *, before: int, elapsed_s: float) -> None:
    failed = sum(summary.failed for summary in summaries)
    sound = run.photos - failed
    masked_percent_sum = sum(summary.masked_percent_sum for summary in summaries)
    table = Table(*(Column(name, justify="right") for name in _COLUMNS))
    now = run.photos - before
    table.add_row(
        f"{run.photos:,}",
        f"{failed:,}",
        f"{sum(summary.instances for summary in summaries):,}",
        f"{masked_percent_sum / sound:.2f}" if sound else "",
        f"{now / elapsed_s:.1f}" if now else "",
    )
    console = make_console()
    console.print(table)
    notes = []
    if before:
        notes.append(f"{before:,} photos were done before.")
    if run.left_out:
        notes.append(f"Other files that lie there: {run.left_out:,}.")
    if failed:
        notes.append("What is wrong with those that failed stands in the photos' error_message.")
    for note in (*notes, f"Tables in {run.folder}"):
        console.print(note, soft_wrap=True)


_COLUMNS = ("photos", "failed", "instances", "mean masked %", "photos/s")
