"""``maskserve export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskserve.cli.extras import train_extra
from maskserve.cli.report import make_console
from maskserve.core.errors import ParameterError

__all__ = ["export"]


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a training run.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="BUNDLE",
            help="Where to put it: a folder, or a .zip of a bundle.",
            show_default=False,
        ),
    ],
    *,
    format: Annotated[  # noqa: A002 -- the flag's name
        Literal["bundle", "detectron2"],
        typer.Option(help="A bundle to serve, or a checkpoint and a config for Detectron2."),
    ] = "bundle",
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

    With --format detectron2, a run of a ResNet becomes model_final.pth and config.yaml, which
    Detectron2 loads; the other options are of bundles.

    Examples:

        maskserve export runs/first --out balloons.zip
        maskserve export runs/first --out balloons --metrics results/metrics.json
        maskserve export runs/first --format detectron2 --out for-detectron2
        maskserve serve --model balloons.zip
    """
    with train_extra():
        from maskserve.export import export_detectron2, export_run

    if format == "detectron2":
        _refuse_options(
            {
                "--name": name,
                "--description": description,
                "--licence": licence,
                "--metrics": metrics,
            }
        )
        export_detectron2(run, out)
        make_console().print(f"Wrote {out}; config.yaml says how to load it.", soft_wrap=True)
        return
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


def _refuse_options(options: dict[str, object]) -> None:
    """Options that would say something which the export has no place for."""
    given = [flag for flag, value in options.items() if value]
    if given:
        raise ParameterError(f"{', '.join(given)}: a model for Detectron2 has no place for that.")
