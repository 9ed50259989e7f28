"""``maskserve quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskserve.cli.extras import quantize_extra
from maskserve.cli.import_options import show_steps
from maskserve.cli.inputs import expand_inputs
from maskserve.cli.report import make_console

__all__ = ["quantize"]

_NO_GAIN = 0.9
"""Of the time; what is saved beyond that is worth a second bundle."""


def quantize(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="NAME|BUNDLE", help="A shipped model or a bundle.", show_default=False
        ),
    ],
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO|FOLDER...",
            help="Some dozen photos that show what the model looks for. Every fourth one is kept "
            "for the comparison.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="BUNDLE", help="Where to put it: a folder or a .zip.", show_default=False
        ),
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option(help="Name in the API. By default the original's with “-int8” behind it."),
    ] = None,
) -> None:
    """Make a bundle that computes with 8-bit integers, and say how its answers changed.

    It is meant for ResNets, which become two to three times as fast. A MobileNet gains nothing.
    It needs the extra: pip install 'maskserve[quantize]'.

    Examples:

        maskserve quantize r50.zip photos --out r50-int8.zip
        maskserve compare r50.zip r50-int8.zip --data annotated --out compared
    """
    with quantize_extra():
        from maskserve.export.quantize import quantize_bundle
    from maskserve.reporting.wording import quantity
    from maskserve.runtime.bundle import find_bundle
    from maskserve.runtime.image_io import IMAGE_SUFFIXES

    with show_steps() as tell:
        done = quantize_bundle(
            find_bundle(bundle),
            expand_inputs(photos, frozenset(IMAGE_SUFFIXES)),
            out,
            name=name,
            on_step=tell,
        )
    a = done.agreement
    console = make_console()
    console.print(
        f"Wrote {out} with the model “{done.name}”: {done.layers} of "
        f"{done.layers + done.left} layers compute with integers.",
        f"On {quantity(a.photos, 'photo')} that it was not calibrated on: "
        f"{a.kept} of {quantity(a.instances, 'instance')} found again with mask IoU "
        f"{a.mask_iou:.3f} on average, {a.added} added; "
        f"the masked share changed by {a.covered_points:.2f} points on average.",
        f"Time of a photo: {a.time_ratio:.2f} of the original's here.",
        sep="\n",
        soft_wrap=True,
    )
    if a.time_ratio > _NO_GAIN:
        console.print("That is no gain: keep the original.")
