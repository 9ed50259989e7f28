"""What is in a data set, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from maskserve.datasets import SplitSummary, Spread

__all__ = ["summary_table"]

_MOST_CLASSES = 12


def summary_table(splits: Sequence[SplitSummary]) -> Table:
    """One column for each split; rows that are zero in all of them are left out."""
    table = Table("", *(split.name or "all" for split in splits))
    for column in table.columns[1:]:
        column.justify = "right"
    rows = {
        "photos": [split.photos for split in splits],
        "photos without any annotation": [split.empty_photos for split in splits],
        "instances": [split.instances for split in splits],
        "crowd regions": [split.crowds for split in splits],
    }
    for name, counts in rows.items():
        if any(counts) or name == "instances":
            table.add_row(name, *map(str, counts))
    table.add_row("instances a photo", *(_range(split.instances_per_photo) for split in splits))
    table.add_row("photo width, px", *(_range(split.width_px) for split in splits))
    table.add_row("photo height, px", *(_range(split.height_px) for split in splits))
    table.add_row("√ instance area, px", *(_range(split.instance_px) for split in splits))
    _add_classes(table, splits)
    table.caption = "Of sizes and counts: least–median–largest"
    return table


def _add_classes(table: Table, splits: Sequence[SplitSummary]) -> None:
    """Instances by class, the most frequent first, if there are several."""
    totals: dict[str, int] = {}
    for split in splits:
        for name, count in split.per_class.items():
            totals[name] = totals.get(name, 0) + count
    if len(totals) < 2:
        return
    table.add_section()
    names = sorted(totals, key=lambda name: -totals[name])
    for name in names[:_MOST_CLASSES]:
        table.add_row(name, *(str(split.per_class.get(name, 0)) for split in splits))
    rest = names[_MOST_CLASSES:]
    if rest:
        sums = (sum(split.per_class.get(name, 0) for name in rest) for split in splits)
        table.add_row(f"{len(rest)} other classes", *map(str, sums))


def _range(spread: Spread) -> str:
    return f"{spread.least:.0f}–{spread.median:.0f}–{spread.largest:.0f}"
