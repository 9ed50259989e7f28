"""``maskserve data check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from maskserve.cli.data_options import ClassAttributeOption, FormatOption, SourceArgument
from maskserve.cli.data_summary import summary_table
from maskserve.cli.report import make_console, make_progress
from maskserve.core.errors import DatasetError, DatasetProblem

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["check"]


def check(
    folder: SourceArgument,
    *,
    split: Annotated[
        str | None, typer.Option(help="The only split to look at. By default all of them.")
    ] = None,
    format: FormatOption = None,  # noqa: A002 -- the flag's name
    class_attribute: ClassAttributeOption = None,
) -> None:
    """Find everything that is wrong with a folder of annotated photos, in one go.

    Says what is in each split. Errors have to be mended: missing and damaged photos, outlines
    that are none or lie outside, instances annotated twice, photos that are there twice or were
    copied from one split into another. With any of these it exits with 3.

    Warnings may be meant: outlines that cross themselves or reach beyond the photo, instances
    and photos that look much like another one.

    Examples:

        maskserve data check ./balloon
        maskserve data check ./balloon --split train
    """
    from maskserve.datasets import check_dataset

    with make_progress() as progress:
        task = progress.add_task("Looking at photos", total=None)
        report = check_dataset(
            folder,
            split=split,
            format=format,
            class_attribute=class_attribute,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console = make_console()
    if report.splits:
        console.print(summary_table(report.splits))
    _print_warnings(console, report.warnings)
    if report.errors:
        many = "1 error" if len(report.errors) == 1 else f"{len(report.errors)} errors"
        raise DatasetError(f"{folder} has {many}:", problems=report.errors)
    console.print(f"{folder} has no errors.", soft_wrap=True)


def _print_warnings(console: Console, warnings: Sequence[DatasetProblem]) -> None:
    if warnings:
        many = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
        console.print(f"{many}, which may be meant:")
    for warning in warnings:
        console.print(f"  {warning}", soft_wrap=True)
