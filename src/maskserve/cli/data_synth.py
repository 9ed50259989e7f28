"""``maskserve data synth``."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

import typer

from maskserve.cli.data_options import OutOption
from maskserve.cli.data_summary import summary_table
from maskserve.cli.report import make_console, make_progress
from maskserve.core.errors import ParameterError

__all__ = ["synth"]


def synth(
    out: OutOption,
    *,
    photos: Annotated[int, typer.Option(min=1, help="How many photos to render.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other photos.")] = 0,
    size: Annotated[
        str,
        typer.Option(
            metavar="HxW", help="Height and width; a third of the photos have them exchanged."
        ),
    ] = "480x640",
    instances: Annotated[
        int, typer.Option(min=1, help="Balloons in the median photo; it varies from 1 to 30.")
    ] = 4,
    format: Annotated[  # noqa: A002 -- the flag's name
        Literal["coco", "via", "yolo", "masks"],
        typer.Option(help="The format to write. coco keeps the masks as they are."),
    ] = "coco",
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many to render at a time. By default one a CPU.")
    ] = None,
) -> None:
    """Render photos of balloons with exact masks, to train on beside annotated ones.

    The same seed gives the same photos, however many processes render them. Use the result as
    a data set of its own, or as extra photos of a training.

    Examples:

        maskserve data synth --out rendered --photos 1200 --seed 7
        maskserve data synth --out rendered --size 768x1024 --instances 8
    """
    from maskserve.datasets import write_balloon_dataset

    with make_progress() as progress:
        task = progress.add_task("Rendering photos", total=photos)
        summary = write_balloon_dataset(
            out,
            photos=photos,
            seed=seed,
            size=_parse_size(size),
            instances=instances,
            format=format,
            processes=processes or os.cpu_count() or 1,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console = make_console()
    console.print(summary_table([summary]))
    console.print(f"Written to {out}", soft_wrap=True)


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX×](\d+)", text)
    if match is None:
        raise ParameterError(f"--size takes a height and a width, as 480x640, not “{text}”.")
    return int(match[1]), int(match[2])
