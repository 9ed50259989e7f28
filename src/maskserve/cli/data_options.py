"""Options that commands with a data set have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskserve.core.errors import ParameterError

__all__ = [
    "ClassAttributeOption",
    "ClassNameOption",
    "DataOption",
    "FormatOption",
    "LinkOption",
    "OutOption",
    "SourceArgument",
    "SplitOption",
    "require_place",
]

SourceArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The data set's folder.", show_default=False)
]

DataOption = Annotated[
    Path, typer.Option(metavar="DIR", help="The data set's folder.", show_default=False)
]

SplitOption = Annotated[
    str, typer.Option(help="Part of the data to measure on, where it is divided.")
]

OutOption = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Where to put it: a new folder.", show_default=False),
]

LinkOption = Annotated[
    bool, typer.Option("--link", help="Link the photos instead of copying them; on one disk only.")
]

FormatOption = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="coco, via, yolo, masks, label-studio or labelme. By default recognised by the files.",
    ),
]

ClassNameOption = Annotated[
    str | None,
    typer.Option(
        help="Name of the only class of mask folders, and of VIA files that name none. "
        "By default the folder's."
    ),
]

ClassAttributeOption = Annotated[
    str | None,
    typer.Option(help="The region attribute that holds the class, in VIA files with several."),
]


def require_place(out: Path, *, source: Path) -> None:
    """Find out that a new data set cannot be put there before anything is read.

    Raises:
        ParameterError: ``out`` lies in ``source``, where it would be taken for a part of it.
        OutputError: ``out`` holds something.
    """
    from maskserve.datasets.target import require_free

    if out.resolve().is_relative_to(source.resolve()):
        raise ParameterError(
            f"{out} lies in the data set's own folder, {source}.", hint="Name one outside of it."
        )
    require_free(out)
