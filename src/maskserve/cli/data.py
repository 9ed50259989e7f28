"""``maskserve data``: looking after annotated photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskserve.cli.report import make_console

__all__ = ["app"]

app = typer.Typer(name="data", no_args_is_help=True, help="Look after annotated photos.")


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The data set's folder.", show_default=False)
    ],
    *,
    split: Annotated[
        str | None, typer.Option(help="The only split to look at. By default all of them.")
    ] = None,
    format: Annotated[  # noqa: A002 -- the flag's name
        str | None, typer.Option(help="via or coco. By default recognised by the files.")
    ] = None,
    class_attribute: Annotated[
        str | None,
        typer.Option(help="The region attribute that holds the class, in VIA files with several."),
    ] = None,
) -> None:
    """Find everything that is wrong with a folder of annotated photos, in one go.

    Looks for missing and damaged photos, outlines that are none, instances annotated twice, and
    photos that are in two splits. Exits with 3 if there are problems.

    Examples:

        maskserve data check ./balloon
        maskserve data check ./balloon --split train
    """
    from maskserve.core.errors import DatasetError
    from maskserve.datasets import check_dataset

    problems = check_dataset(folder, split=split, format=format, class_attribute=class_attribute)
    if problems:
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DatasetError(f"{folder} has {many}:", problems=problems)
    make_console().print(f"{folder} is fine.")
