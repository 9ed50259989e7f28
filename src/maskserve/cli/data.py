"""``maskserve data``: looking after annotated photos."""

from __future__ import annotations

import typer

from maskserve.cli.data_check import check
from maskserve.cli.data_fetch import fetch
from maskserve.cli.data_formats import convert, subset
from maskserve.cli.data_split import split
from maskserve.cli.data_synth import synth

__all__ = ["app"]

app = typer.Typer(name="data", no_args_is_help=True, help="Look after annotated photos.")
for command in (fetch, check, split, convert, subset, synth):
    app.command()(command)
