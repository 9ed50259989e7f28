"""``maskserve data convert`` and ``maskserve data subset``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from maskserve.cli.data_options import (
    ClassAttributeOption,
    ClassNameOption,
    FormatOption,
    LinkOption,
    OutOption,
    SourceArgument,
    require_place,
)
from maskserve.cli.report import make_console, make_progress
from maskserve.core.errors import ParameterError

if TYPE_CHECKING:
    from maskserve.datasets import Dataset

__all__ = ["convert", "subset"]

_MOST_CLASS_COLUMNS = 6

SplitOption = Annotated[str | None, typer.Option(help="The only split to take. By default all.")]


def convert(
    source: SourceArgument,
    to: Annotated[
        Literal["coco", "via", "yolo", "masks"],
        typer.Option(help="The format to write.", show_default=False),
    ],
    out: OutOption,
    *,
    split: SplitOption = None,
    format: FormatOption = None,  # noqa: A002 -- the flag's name
    class_name: ClassNameOption = None,
    class_attribute: ClassAttributeOption = None,
    link: LinkOption = False,
) -> None:
    """Write a data set anew in another format, photos included.

    All masks stay as they are, to the pixel. It says what else had to change for the new format,
    such as crowd regions left out. A data set with problems is refused, and all are listed.

    Examples:

        maskserve data convert ./balloon --to coco --out balloon-coco
        maskserve data convert ./cells --to yolo --out cells-yolo --class-name cell
    """
    require_place(out, source=source)
    splits = _read(
        source, split=split, format=format, class_name=class_name, class_attribute=class_attribute
    )
    _write(out, splits, format=to, link=link)


def subset(
    source: SourceArgument,
    classes: Annotated[
        list[str],
        typer.Option(
            metavar="NAMES",
            help="Classes to keep, separated by commas; or repeat the flag.",
            show_default=False,
        ),
    ],
    out: OutOption,
    *,
    split: SplitOption = None,
    keep_empty: Annotated[
        str,
        typer.Option(
            metavar="N|all|none",
            help="How many photos to keep, in each split, in which there is none of the classes.",
        ),
    ] = "none",
    format: FormatOption = None,  # noqa: A002 -- the flag's name
    class_name: ClassNameOption = None,
    class_attribute: ClassAttributeOption = None,
    link: LinkOption = False,
) -> None:
    """Take some classes out of a data set, and the photos that show them.

    The result is a COCO data set. Classes keep their COCO ids, and crowd regions of these
    classes are kept.

    Examples:

        maskserve data subset ./coco --classes dog,frisbee --out dogs
        maskserve data subset ./coco --classes dog --keep-empty 50 --out dogs
    """
    from maskserve.datasets import select_classes

    most_empty = _parse_keep_empty(keep_empty)
    require_place(out, source=source)
    splits = _read(
        source, split=split, format=format, class_name=class_name, class_attribute=class_attribute
    )
    known = {name for dataset in splits.values() for name in dataset.categories.names}
    names = [
        name
        for value in classes
        for name in ([value] if value in known else map(str.strip, value.split(",")))
    ]
    selected = {
        key: select_classes(dataset, names, keep_empty=most_empty)
        for key, dataset in splits.items()
    }
    _write(out, selected, format="coco", link=link)


def _read(
    source: Path,
    *,
    split: str | None,
    format: str | None,  # noqa: A002
    class_name: str | None,
    class_attribute: str | None,
) -> dict[str | None, Dataset]:
    from maskserve.datasets import load_splits

    with make_progress() as progress:
        progress.add_task("Reading", total=None)
        return load_splits(
            source,
            split=split,
            format=format,
            class_name=class_name,
            class_attribute=class_attribute,
        )


def _write(
    out: Path,
    splits: Mapping[str | None, Dataset],
    *,
    format: str,  # noqa: A002
    link: bool,
) -> None:
    """Write a data set, and print what is in it and what could not be."""
    from maskserve.datasets import write_dataset

    with make_progress() as progress:
        task = progress.add_task("Writing")
        losses = write_dataset(
            out,
            splits,
            format=format,
            link=link,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console = make_console()
    console.print(_table_of(splits))
    if losses:
        console.print(f"Changed for “{format}”:")
        for loss, times in losses.items():
            console.print(f"  {times} × {loss}", soft_wrap=True)
    console.print(f"Written to {out}", soft_wrap=True)


def _parse_keep_empty(value: str) -> int | None:
    if value in ("all", "none"):
        return None if value == "all" else 0
    if not value.isdecimal():
        raise ParameterError(f"--keep-empty takes a number, all or none, not “{value}”.")
    return int(value)


def _table_of(splits: Mapping[str | None, Dataset]) -> Table:
    """Photos and instances of each split, by class unless there are many."""
    names = list(dict.fromkeys(name for d in splits.values() for name in d.categories.names))
    by_class = len(names) <= _MOST_CLASS_COLUMNS
    columns = names if by_class else ["instances"]
    table = Table("split", "photos", *columns, "crowd regions", "photos without any")
    for split, dataset in splits.items():
        annotations = [a for sample in dataset.samples for a in sample.annotations]
        found = [dataset.categories.names[a.class_index] for a in annotations if not a.is_crowd]
        counts = [found.count(name) for name in names] if by_class else [len(found)]
        crowds = len(annotations) - len(found)
        empty = sum(not sample.annotations for sample in dataset.samples)
        table.add_row(split or "all", *map(str, (len(dataset), *counts, crowds, empty)))
    return table
