"""``maskserve data split``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from maskserve.cli.data_options import (
    ClassAttributeOption,
    ClassNameOption,
    FormatOption,
    LinkOption,
    OutOption,
    SourceArgument,
    require_place,
)
from maskserve.cli.data_summary import summary_table
from maskserve.cli.report import make_console, make_progress

__all__ = ["split"]


def split(
    source: SourceArgument,
    out: OutOption,
    *,
    val: Annotated[float, typer.Option(help="Share of the photos for val, above 0.")] = 0.15,
    test: Annotated[
        float, typer.Option(help="Share of the photos for test. By default there is none.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed draws other photos.")] = 0,
    to: Annotated[
        Literal["coco", "via", "yolo", "masks"],
        typer.Option(help="The format to write. Only coco holds everything."),
    ] = "coco",
    from_split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="What to divide of a data set that is divided already; the rest is left out.",
        ),
    ] = None,
    format: FormatOption = None,  # noqa: A002 -- the flag's name
    class_name: ClassNameOption = None,
    class_attribute: ClassAttributeOption = None,
    link: LinkOption = False,
) -> None:
    """Divide a data set into train, val and test, by photo.

    Which photos go where depends on the seed and their names alone. Crowded and sparse photos
    go to all sides. val gets the photos that maskserve train would hold out with this seed.

    Examples:

        maskserve data split ./mugs --out mugs-split
        maskserve data split ./mugs --val 0.2 --test 0.1 --out mugs-split
    """
    from maskserve.datasets import divide_dataset, load_dataset, summarise_split, write_dataset

    require_place(out, source=source)
    dataset = load_dataset(
        source,
        split=from_split,
        format=format,
        class_name=class_name,
        class_attribute=class_attribute,
    )
    shares = {"val": val, "test": test} if test else {"val": val}
    parts = divide_dataset(dataset, shares=shares, seed=seed)
    with make_progress() as progress:
        task = progress.add_task("Writing photos", total=len(dataset))
        losses = write_dataset(
            out,
            parts,
            format=to,
            link=link,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console = make_console()
    console.print(summary_table([summarise_split(name, part) for name, part in parts.items()]))
    for loss, times in losses.items():
        console.print(f"“{to}” cannot hold: {times} × {loss}", soft_wrap=True)
    console.print(f"Written to {out}", soft_wrap=True)
