"""``maskserve report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskserve.cli.extras import train_extra
from maskserve.cli.report import make_console

__all__ = ["report"]


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a training run.", show_default=False)
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the data set lies now. By default where it was during training.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the report and the model card of a training run again.

    Training writes them at its end; do it again where it was interrupted, or after an update of
    maskserve. Nothing is computed by the network: what it found is kept in the run's folder.
    It needs the extra: pip install 'maskserve[train]'.

    Examples:

        maskserve report runs/first
        maskserve report runs/first --data /elsewhere/balloon
    """
    with train_extra():
        from maskserve.training import report_run

    make_console().print(f"Wrote {report_run(run, data=data)}", soft_wrap=True)
