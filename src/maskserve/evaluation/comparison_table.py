"""A comparison as text: for the terminal, as Markdown, and for programs."""

from __future__ import annotations

import csv
import io
from typing import get_args

from rich.table import Column, Table

from maskserve.evaluation.comparison import ComparedModel, Comparison, Estimate
from maskserve.evaluation.measures import MEASURES, Group, Measure, measures_of

__all__ = [
    "CITED_HEADING",
    "GROUP_NOTES",
    "change_text",
    "cited_lines",
    "comparison_csv",
    "comparison_markdown",
    "comparison_table",
    "spread_text",
    "value_text",
    "verdicts",
]

GROUP_NOTES: dict[Group, str] = {
    "Accuracy": "0 to 100, higher is better, with the 95 % interval. Against the first model: the "
    "difference, with its own interval, which is the one to go by: if it does not hold 0, it is "
    "more than chance would explain.",
    "Time": "Milliseconds a photo: the median, with the middle half of the runs. Against the first "
    "model: how many times as long.",
    "Size": "Against the first model: how many times as much.",
}
"""What stands in the tables of a group."""

CITED_HEADING = "* Reported by others, not measured here:"
"""Goes before :attr:`CitedModel.note` of each."""

_NONE = "–"
_CSV_COLUMNS = (
    "model",
    "measure",
    "value",
    "low",
    "high",
    "against_first",
    "against_first_low",
    "against_first_high",
    "source",
)


def comparison_table(comparison: Comparison) -> Table:
    """For the terminal, without differences, for which there is no room; “–” is not measured."""
    table = Table(
        Column("", no_wrap=True),
        *(Column(model.name, justify="right", overflow="fold") for model in comparison.models),
        title=f"{comparison.dataset_name}: {comparison.photo_count} photos, "
        f"{comparison.instance_count} instances",
        caption="Accuracy 0 to 100 (95 % interval), time in ms a photo (middle half of the runs)",
    )
    for group in get_args(Group):
        table.add_section()
        table.add_row(group, style="bold")
        for measure in measures_of(group):
            cells = [_cell(measure, model.estimates[measure.key]) for model in comparison.models]
            table.add_row(measure.title, *cells)
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """For a README: a table for each group of measures, what they mean, and where they are from."""
    lines = [
        f"# {' against '.join(model.name for model in comparison.models)}",
        "",
        f"{comparison.dataset_name}: {comparison.photo_count} photos, "
        f"{comparison.instance_count} instances. Measured on {comparison.machine}, with "
        f"{comparison.software}.",
    ]
    lines += ["", *(f"- {verdict}" for verdict in verdicts(comparison))]
    for group in get_args(Group):
        lines += ["", f"## {group}", "", GROUP_NOTES[group], ""]
        lines += _markdown_table(comparison, group)
    if comparison.cited:
        lines += ["", CITED_HEADING, "", *(f"- {cited.note}" for cited in comparison.cited)]
    lines += ["", "## What the measures mean", ""]
    lines += [f"- **{measure.title}**: {measure.meaning}" for measure in MEASURES]
    return "\n".join(lines) + "\n"


def comparison_csv(comparison: Comparison) -> str:
    """For programs: a line for each model and measure; empty where nothing was measured.

    ``low`` and ``high`` bound the 95 % interval of accuracies and the middle half of times;
    ``against_first`` is the difference of accuracies and the ratio of others. Only figures of
    others have a ``source``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for model in comparison.models:
        for measure in MEASURES:
            estimate = model.estimates[measure.key]
            numbers = (
                estimate.value,
                *(estimate.spread or (None, None)),
                estimate.change,
                *(estimate.change_spread or (None, None)),
            )
            rounded = ["" if x is None else round(x, 6) for x in numbers]
            writer.writerow([model.name, measure.key, *rounded, ""])
    for cited in comparison.cited:
        for key, value in cited.values.items():
            writer.writerow([cited.name, key, value, *[""] * 5, f"{cited.source} ({cited.data})"])
    return text.getvalue()


def value_text(measure: Measure, value: float | None) -> str:
    """A number with the decimals of its measure, from 100 on with none; “–” for None."""
    if value is None:
        return _NONE
    return f"{value:.{measure.decimals if value < 100 else 0}f}"


def spread_text(measure: Measure, estimate: Estimate) -> str:
    """Such as “68.1–87.2”; empty without spread."""
    return (
        "" if estimate.spread is None else "–".join(value_text(measure, x) for x in estimate.spread)
    )


def change_text(measure: Measure, estimate: Estimate) -> str:
    """Such as “+1.5 (−0.2…+3.1)” for accuracies and “1.85 × (1.80–1.91)” for others."""
    if estimate.change is None:
        return _NONE
    spread = estimate.change_spread
    if measure.group == "Accuracy":
        text = _signed(estimate.change)
        return text if spread is None else f"{text} ({_signed(spread.low)}…{_signed(spread.high)})"
    text = f"{_ratio(estimate.change)} ×"
    return text if spread is None else f"{text} ({_ratio(spread.low)}–{_ratio(spread.high)})"


def cited_lines(comparison: Comparison) -> list[str]:
    """Figures of others, each in a line with its source, below a heading; none without them."""
    if not comparison.cited:
        return []
    titles = {measure.key: measure.title for measure in MEASURES}
    return [
        CITED_HEADING,
        *(
            f"{cited.note} " + ", ".join(f"{titles[k]} {v:.1f}" for k, v in cited.values.items())
            for cited in comparison.cited
        ),
    ]


def verdicts(comparison: Comparison) -> list[str]:
    """A sentence for each further model: how it compares, and whether that may be chance."""
    first, *others = comparison.models
    return [_verdict(model, first) for model in others]


def _verdict(model: ComparedModel, first: ComparedModel) -> str:
    accuracy, time = (model.estimates[key] for key in ("mask_AP", "total_ms"))
    sentences = []
    if accuracy.change is not None:
        sentences.append(
            f"mask AP {_signed(accuracy.change)} against {first.name}{_doubt(accuracy)}."
        )
    if time.change is not None:
        sentences.append(f"A photo takes {_ratio(time.change)} times as long.")
    return f"{model.name}: {' '.join(sentences)}"


def _doubt(accuracy: Estimate) -> str:
    spread = accuracy.change_spread
    if spread is None:
        return ""
    interval = f" (95 % interval {_signed(spread.low)} to {_signed(spread.high)})"
    if spread.low <= 0 <= spread.high:
        return f"{interval}, which may be chance"
    return f"{interval}, more than chance would explain"


def _markdown_table(comparison: Comparison, group: Group) -> list[str]:
    """A row for each measure, a column for each model and one for its change."""
    first, *others = comparison.models
    cited = comparison.cited if group == "Accuracy" else ()
    columns = [first.name]
    for model in others:
        columns += [model.name, f"against {first.name}"]
    columns += [f"{c.name} *" for c in cited]
    rows = []
    for measure in measures_of(group):
        row = [measure.title, _cell(measure, first.estimates[measure.key])]
        for model in others:
            estimate = model.estimates[measure.key]
            row += [_cell(measure, estimate), change_text(measure, estimate)]
        rows.append([*row, *(value_text(measure, c.values.get(measure.key)) for c in cited)])
    return [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"
        for row in (["", *columns], ["---"] + ["---:"] * len(columns), *rows)
    ]


def _cell(measure: Measure, estimate: Estimate) -> str:
    value, spread = value_text(measure, estimate.value), spread_text(measure, estimate)
    return f"{value} ({spread})" if spread else value


def _signed(number: float) -> str:
    text = f"{number:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
