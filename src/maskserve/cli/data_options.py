"""Options that commands with a data set have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskserve.core.errors import ParameterError

__all__ = [
    "ClassAttributeOption",
    "ClassNameOption",
    "FormatOption",
    "LinkOption",
    "OutOption",
    "SourceArgument",
    "require_outside",
]

SourceArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The data set's folder.", show_default=False)
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
        help="coco, via, yolo, masks or labelme. By default recognised by the files.",
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


def require_outside(source: Path, out: Path) -> None:
    """Make sure that a new data set is not put where it would be taken for a part of the old one.

    Raises:
        ParameterError: ``out`` lies in ``source``.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise ParameterError(
            f"{out} lies in the data set's own folder, {source}.", hint="Name one outside of it."
        )
