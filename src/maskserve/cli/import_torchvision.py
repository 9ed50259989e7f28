"""``maskserve import torchvision``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from maskserve.cli.extras import train_extra
from maskserve.cli.import_options import (
    ArithmeticOption,
    BundleOption,
    ClassesOption,
    DescriptionOption,
    LicenceOption,
    MinScoreOption,
    NameOption,
    PhotoOption,
    StoredOption,
    print_imported,
    read_class_names,
    show_steps,
)

__all__ = ["torchvision"]


def torchvision(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="maskrcnn_resnet50_fpn or maskrcnn_resnet50_fpn_v2.",
            show_default=False,
        ),
    ],
    out: BundleOption,
    *,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A checkpoint of such a model. By default torchvision downloads its own, of "
            "COCO's classes.",
            show_default=False,
        ),
    ] = None,
    classes: ClassesOption = None,
    name: NameOption = None,
    description: DescriptionOption = "",
    licence: LicenceOption = "unknown",
    min_score: MinScoreOption = None,
    photo: PhotoOption = None,
    precision: StoredOption = "f32",
    arithmetic: ArithmeticOption = "f32",
) -> None:
    """Make a bundle of a Mask R-CNN of torchvision.

    Nothing is written if the exported model answers differently. It needs the extra:
    pip install 'maskserve[train]'.

    Examples:

        maskserve import torchvision maskrcnn_resnet50_fpn_v2 --out coco.zip
        maskserve import torchvision maskrcnn_resnet50_fpn \\
            --weights mugs.pth --classes mug,spoon --out mugs.zip
        maskserve serve --model coco.zip
    """
    with train_extra():
        from maskserve.export import ImportOptions, import_torchvision

    names = read_class_names(classes)
    with show_steps() as tell:
        imported = import_torchvision(
            model,
            out,
            weights=weights,
            classes=names,
            progress=sys.stderr.isatty(),
            options=ImportOptions(
                name=name,
                description=description,
                licence=licence,
                min_score=min_score,
                photos=tuple(photo or ()),
                precision=precision,
                arithmetic=arithmetic,
                on_step=tell,
            ),
        )
    print_imported(imported, out)
