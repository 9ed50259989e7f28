"""``maskserve import``: models that were trained elsewhere."""

from __future__ import annotations

import typer

from maskserve.cli.import_detectron2 import detectron2
from maskserve.cli.import_torchvision import torchvision

__all__ = ["app"]

app = typer.Typer(
    name="import", no_args_is_help=True, help="Serve models that were trained elsewhere."
)
for command in (detectron2, torchvision):
    app.command()(command)
