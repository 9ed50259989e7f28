"""``maskserve compare``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from maskserve.cli.data_options import ClassAttributeOption, DataOption, FormatOption, SplitOption
from maskserve.cli.extras import report_extra
from maskserve.cli.report import make_console, make_progress

__all__ = ["compare"]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="Shipped models and bundles. The others are compared with the first.",
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
            "By default that of a model that has only one."
        ),
    ] = None,
    class_attribute: ClassAttributeOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write comparison.md, comparison.csv and comparison.html there.",
            show_default=False,
        ),
    ] = None,
    cite: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A TOML file with figures of others to show beside, as theirs."
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "f32"],
        typer.Option(help="Of the arithmetic: auto is what serves, f32 the same on every CPU."),
    ] = "auto",
    rounds: Annotated[
        int, typer.Option(min=1, help="How often the stages are timed, each time on one photo.")
    ] = 30,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="How often photos are drawn for the intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same photos.")] = 0,
) -> None:
    """Put models side by side on annotated photos: how good, how fast, how large.

    Average precision comes with a 95 % interval, and so does its difference to the first model:
    if that interval holds 0, the difference may be chance. Times are of this machine; close
    other programs. The page needs the extra: pip install 'maskserve[report]'.

    Examples:

        maskserve compare balloon ./mine.zip --data ./balloon
        maskserve compare small.zip large.zip --data ./cells --out compared
    """
    from maskserve.datasets import available_splits, load_dataset
    from maskserve.evaluation.citations import read_citations
    from maskserve.evaluation.comparison import compare_models, load_candidates
    from maskserve.evaluation.comparison_table import (
        cited_lines,
        comparison_csv,
        comparison_markdown,
        comparison_table,
        verdicts,
    )
    from maskserve.runtime.files import write_file

    # Everything that can be wrong is found before the long work begins.
    if out is not None:
        with report_extra():
            from maskserve.reporting.comparison_page import write_comparison_page
    cited = [] if cite is None else read_citations(cite)
    candidates = load_candidates(models, precision=precision)
    names = [candidate.bundle.manifest.classes for candidate in candidates]
    dataset = load_dataset(
        data,
        split=split if available_splits(data, format=format) else None,
        format=format,
        class_name=class_name or next((name for name, *others in names if not others), None),
        class_attribute=class_attribute,
    )
    with make_progress() as progress:
        task = progress.add_task("")
        comparison = compare_models(
            candidates,
            dataset,
            cited=cited,
            precision=precision,
            rounds=rounds,
            resamples=bootstrap,
            seed=seed,
            on_progress=lambda step, done, total: progress.update(
                task, description=step, completed=done, total=total
            ),
        )
    console = make_console()
    console.print(comparison_table(comparison))
    for line in (*verdicts(comparison), *cited_lines(comparison)):
        console.print(line, soft_wrap=True)
    if out is not None:
        write_file(out / "comparison.md", comparison_markdown(comparison))
        write_file(out / "comparison.csv", comparison_csv(comparison))
        command = shlex.join(["maskserve", *sys.argv[1:]])
        write_comparison_page(out / "comparison.html", comparison, command=command)
        console.print(f"Written to {out}", soft_wrap=True)
