"""``maskserve export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskserve.cli.extras import train_extra
from maskserve.cli.report import make_console

__all__ = ["export"]


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a training run.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="BUNDLE",
            help="Where to put the bundle: a folder or a .zip.",
            show_default=False,
        ),
    ],
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in the API. By default the run's.")
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="One sentence about the model, for the API.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, such as Apache-2.0.")
    ] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A metrics.json of “maskserve evaluate” to note in the bundle; may be repeated.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Literal["f16", "f32"], typer.Option(help="How weights are stored: f16 halves the file.")
    ] = "f16",
) -> None:
    """Make a bundle that serves without torch, and check that it answers like the run.

    Nothing is written if the exported model differs from the trained one. It needs the extra:
    pip install 'maskserve[train]'.

    Examples:

        maskserve export runs/first --out balloons.zip
        maskserve export runs/first --out balloons --metrics results/metrics.json
        maskserve serve --model balloons.zip
    """
    with train_extra():
        from maskserve.export import export_run

    manifest = export_run(
        run,
        out,
        name=name,
        description=description,
        licence=licence,
        metrics=metrics or (),
        precision=precision,
    )
    make_console().print(
        f"Wrote {out} with the model “{manifest.name}”. Next: maskserve serve --model {out}",
        soft_wrap=True,
    )
