"""``maskserve train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from maskserve.cli.data_options import (
    ClassAttributeOption,
    ClassNameOption,
    DataOption,
    FormatOption,
)
from maskserve.cli.extras import train_extra
from maskserve.runtime.allocator import keep_large_blocks

__all__ = ["train"]


def train(
    data: DataOption,
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="Where to put the run: a new folder.", show_default=False),
    ],
    *,
    model: Annotated[
        Literal["mobilenet_v2", "resnet50", "resnet101"] | None,
        typer.Option(help="mobilenet_v2, the default, is quick on CPUs; resnet101 the heaviest."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A TOML file with settings; the flags win over it."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was interrupted.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="auto|imagenet|coco|none|BUNDLE|FILE|detectron2://NAME",
            help="Initial weights: a shipped model by name or a bundle, a file, or a checkpoint of "
            "Detectron2. By default auto: coco for resnet50, else imagenet.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the model is called in its bundle and in the API.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How many batches to train on.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same run.")] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="On how many GPUs of this machine to train, or in how many processes on its CPUs; "
            "they share each batch.",
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, help="On how many machines; for several, start it by torchrun."),
    ] = None,
    class_name: ClassNameOption = None,
    class_attribute: ClassAttributeOption = None,
    format: FormatOption = None,  # noqa: A002 -- the flag's name
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tensorboard|wandb|mlflow",
            help="Log there, too; repeat it for several. The package must be installed.",
        ),
    ] = None,
    val_split: Annotated[
        str | None,
        typer.Option(help="Split to validate on. By default, training photos are held out."),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="Share of training photos to hold out, between 0 and 1, both excluded."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=20,
            help="Cross-validate: train so many models to measure, each without a part of the "
            "photos, and then one on all photos to keep.",
            show_default=False,
        ),
    ] = None,
    refit: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Train once more as in this run, but also on the photos that it held out; its "
            "figures and threshold stay.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a model on a few dozen annotated photos.

    The run folder gets the weights, the settings, a table and curves of losses and AP, drawn
    photos, and at the end a report (report.html) and a model card. It needs the extra:
    pip install 'maskserve[train]'.

    Examples:

        maskserve train --data ./balloon --out runs/first
        maskserve train --data ./balloon --out runs/first --resume
        maskserve train --data ./balloon --out runs/second --log-to tensorboard
        maskserve train --data ./cells --config recipe.toml --out runs/cells
        maskserve train --data ./mugs --init model_final.pth --out runs/mugs
        maskserve train --data ./party --init balloon --out runs/party
        maskserve train --data ./balloon --out runs/fourth --devices 2
        maskserve train --data ./balloon --out runs/fifth --folds 5
        maskserve train --data ./balloon --out runs/sixth --refit runs/first
    """
    with train_extra():
        from maskserve.training import train as run_training
        from maskserve.training.config import read_settings
        from maskserve.training.processes import check_processes, started_by_torchrun

    settings = read_settings(
        config,
        {
            "model": model,
            "init": init,
            "name": name,
            "steps": steps,
            "seed": seed,
            "class_name": class_name,
            "class_attribute": class_attribute,
            "data_format": format,
            "loggers": log_to,
            "val_split": val_split,
            "val_fraction": val_fraction,
            "folds": folds,
            "refit": refit,
        },
    )
    check_processes(devices, nodes)
    if devices in (None, 1) or started_by_torchrun():
        keep_large_blocks()
        run_training(settings, data=data, out=out, resume=resume)
    else:
        from maskserve.training.launch import start_processes

        raise typer.Exit(start_processes(devices, sys.argv[1:]))
