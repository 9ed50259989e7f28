"""``maskserve evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskserve.cli.extras import train_extra
from maskserve.cli.report import make_console, make_progress

if TYPE_CHECKING:
    from maskserve.core.predictor import Predictor

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|RUN",
            help="A shipped model, a bundle, or the folder of a training run.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The data set's folder.", show_default=False)
    ],
    *,
    split: Annotated[
        str, typer.Option(help="Part of the data to measure on, where it is divided.")
    ] = "val",
    format: Annotated[  # noqa: A002 -- the flag's name
        str | None, typer.Option(help="via or coco. By default recognised by the files.")
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the only class of VIA files that name none. "
            "By default the model's, if it has only one."
        ),
    ] = None,
    class_attribute: Annotated[
        str | None,
        typer.Option(help="The region attribute that holds the class, in VIA files with several."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write metrics.json there.", show_default=False),
    ] = None,
    precision: Annotated[
        Literal["auto", "f32"],
        typer.Option(
            help="Applies to bundles: f32 gives the same numbers on every CPU, auto is what "
            "serves. A run is always measured in float32."
        ),
    ] = "auto",
) -> None:
    """Measure a model on annotated photos: COCO's average precision of boxes and masks.

    A bundle is measured through the very code that serves it. A run needs the extra:
    pip install 'maskserve[train]'.

    Examples:

        maskserve evaluate balloon --data ./balloon
        maskserve evaluate runs/first --data ./balloon --split val --out results
    """
    from maskserve.datasets import available_splits, load_dataset
    from maskserve.evaluation import evaluate as measure
    from maskserve.evaluation import metrics_table, write_metrics

    predictor = _load(model, precision)
    classes = predictor.manifest.classes
    dataset = load_dataset(
        data,
        split=split if available_splits(data, format=format) else None,
        format=format,
        class_name=class_name or (classes[0] if len(classes) == 1 else None),
        class_attribute=class_attribute,
    )
    with make_progress() as progress:
        task = progress.add_task("Evaluating", total=len(dataset))
        metrics = measure(
            predictor,
            dataset,
            on_progress=lambda done, _: progress.update(task, completed=done),
        )
    make_console().print(metrics_table(metrics))
    if out is not None:
        write_metrics(out / "metrics.json", metrics)


def _load(model: str, precision: Literal["auto", "f32"]) -> Predictor:
    if (Path(model) / "settings.json").is_file():
        with train_extra():
            from maskserve.training import load_run_predictor
        return load_run_predictor(Path(model))
    from maskserve.runtime.registry import load_predictor

    return load_predictor(model, precision=precision)
