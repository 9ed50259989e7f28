"""The command ``maskserve``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from maskserve import __version__
from maskserve.cli.benchmark import benchmark
from maskserve.cli.compare import compare
from maskserve.cli.data import app as data_app
from maskserve.cli.evaluate import evaluate
from maskserve.cli.exit_codes import exit_code_of
from maskserve.cli.export import export
from maskserve.cli.imports import app as import_app
from maskserve.cli.models import models
from maskserve.cli.predict import predict
from maskserve.cli.quantize import quantize
from maskserve.cli.report import report_error
from maskserve.cli.run_report import report
from maskserve.cli.serve import serve
from maskserve.cli.train import train
from maskserve.core.errors import MaskserveError

__all__ = ["app", "main"]

app = typer.Typer(
    name="maskserve",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    serve,
    predict,
    train,
    report,
    evaluate,
    compare,
    benchmark,
    export,
    quantize,
    models,
):
    app.command()(command)
app.add_typer(data_app)
app.add_typer(import_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"maskserve {__version__}")
        raise typer.Exit


@app.callback()
def maskserve(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find objects in photos, outline them, and count the pixels they cover.

    Try it:

        maskserve predict photo.jpg --out drawn
        maskserve serve

    Train it on your own photos (with pip install 'maskserve[train]'):

        maskserve data check ./balloon
        maskserve train --data ./balloon --out runs/first
        maskserve evaluate runs/first --data ./balloon
        maskserve export runs/first --out balloons.zip
        maskserve serve --model balloons.zip

    Serve a model of Detectron2, or start from it (with the same extra):

        maskserve import detectron2 --config C.yaml --weights W.pth --out mine.zip
        maskserve train --data ./balloon --init W.pth --out runs/second
    """


def main() -> None:
    """Run the command line; an error of ours becomes a message and an exit code."""
    try:
        app()
    except MaskserveError as error:
        report_error(error)
        sys.exit(exit_code_of(error))
