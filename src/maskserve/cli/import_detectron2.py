"""``maskserve import detectron2``."""

from __future__ import annotations

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

__all__ = ["detectron2"]


def detectron2(
    config: Annotated[
        Path,
        typer.Option(
            metavar="YAML",
            help="The config of the training: the config.yaml in its output folder.",
            show_default=False,
        ),
    ],
    weights: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The checkpoint: a .pth of a training, or a .pkl of the model zoo.",
            show_default=False,
        ),
    ],
    out: BundleOption,
    *,
    classes: ClassesOption = None,
    name: NameOption = None,
    description: DescriptionOption = "",
    licence: LicenceOption = "unknown",
    min_score: MinScoreOption = None,
    photo: PhotoOption = None,
    precision: StoredOption = "f32",
    arithmetic: ArithmeticOption = "f32",
) -> None:
    """Make a bundle of a Mask R-CNN that Detectron2 trained, without Detectron2.

    Supported are ResNets and ResNeXts with a feature pyramid (FPN). Nothing is written if the
    exported model answers differently. It needs the extra: pip install 'maskserve[train]'.

    Examples:

        maskserve import detectron2 \\
            --config output/config.yaml --weights output/model_final.pth \\
            --classes screw,nut --out parts.zip
        maskserve serve --model parts.zip
    """
    with train_extra():
        from maskserve.export import ImportOptions, import_detectron2

    names = read_class_names(classes)
    with show_steps() as tell:
        imported = import_detectron2(
            config,
            weights,
            out,
            classes=names,
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
