"""``maskserve evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskserve.cli.data_options import ClassAttributeOption, DataOption, FormatOption, SplitOption
from maskserve.cli.extras import report_extra, train_extra
from maskserve.cli.report import make_console, make_progress
from maskserve.core.errors import MissingExtraError

if TYPE_CHECKING:
    from maskserve.core.manifest import Manifest
    from maskserve.core.predictor import Predictor
    from maskserve.datasets.types import Dataset
    from maskserve.evaluation import Metrics

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
    data: DataOption,
    *,
    split: SplitOption = "val",
    format: FormatOption = None,  # noqa: A002 -- the flag's name
    class_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the only class of mask folders, and of VIA files that name none. "
            "By default the model's, if it has only one."
        ),
    ] = None,
    class_attribute: ClassAttributeOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write metrics.json, predictions.json and report.html there.",
            show_default=False,
        ),
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

    A bundle is measured through the very code that serves it. The report is a page with curves,
    mistakes, and the worst and best photos; it needs the extra: pip install 'maskserve[report]'.
    A run needs another one: pip install 'maskserve[train]'.

    Examples:

        maskserve evaluate balloon --data ./balloon
        maskserve evaluate runs/first --data ./balloon --split val --out results
    """
    from maskserve.datasets import available_splits, load_dataset
    from maskserve.evaluation import evaluate as measure
    from maskserve.evaluation import metrics_table

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
        _write(out, dataset, metrics, predictor.manifest)


def _write(out: Path, dataset: Dataset, metrics: Metrics, manifest: Manifest) -> None:
    """The page only where matplotlib is, as the numbers have no need of it."""
    from maskserve.evaluation import write_metrics, write_predictions

    write_metrics(out / "metrics.json", metrics)
    write_predictions(out / "predictions.json", dataset, metrics.predictions)
    try:
        with report_extra():
            from maskserve.reporting.evaluation import examine, write_evaluation_report
    except MissingExtraError as error:
        note = f"{out} gets no report.html: it needs matplotlib. {error.hint}"
        make_console(stderr=True).print(note, soft_wrap=True)
        return
    findings = examine(dataset, metrics, min_score=manifest.postprocess.min_score)
    write_evaluation_report(out / "report.html", findings, manifest)
    make_console().print(f"Look at {out / 'report.html'}", soft_wrap=True)


def _load(model: str, precision: Literal["auto", "f32"]) -> Predictor:
    if (Path(model) / "settings.json").is_file():
        with train_extra():
            from maskserve.training import load_run_predictor
        return load_run_predictor(Path(model))
    from maskserve.runtime.registry import load_predictor

    return load_predictor(model, precision=precision)
