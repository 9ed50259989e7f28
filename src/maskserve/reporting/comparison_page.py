"""The page of ``maskserve compare``: several models on the same photos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from maskserve.benchmarking.stages import STAGES
from maskserve.evaluation.bootstrap import Interval
from maskserve.evaluation.comparison import ComparedModel, Comparison, Estimate
from maskserve.evaluation.comparison_table import (
    CITED_HEADING,
    GROUP_NOTES,
    change_text,
    spread_text,
    value_text,
    verdicts,
)
from maskserve.evaluation.measures import MEASURES, Group, Measure, measures_of
from maskserve.reporting.page import Section, figure, side_by_side, table, write_page

__all__ = ["draw_pareto", "draw_sizes", "draw_stages", "pareto_front", "write_comparison_page"]

# Okabe and Ito's colours, of which these show on white as well as on black, and two more.
_COLOURS = ("#3593d0", "#e08a00", "#009e73", "#d55e00", "#cc79a7", "#8f7ee0", "#8a94a0")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SIZE_IN = (5.0, 3.6)
_LOG_FROM = 4
"""Ratio of the longest to the shortest time from which the axis of a plot is logarithmic …"""
_FEW_LABELS_FROM = 15
"""… and from which there is no room for many numbers along it."""


def write_comparison_page(path: Path, comparison: Comparison, *, command: str) -> None:
    """Write the page.

    Args:
        path: The HTML file, which is replaced as a whole.
        comparison: What was measured.
        command: The command line, to be repeated.

    Raises:
        OutputError: The file cannot be written.
    """
    names = [model.name for model in comparison.models]
    title = " against ".join(names) if len(names) < 4 else f"{len(names)} models side by side"
    small, medium, large = comparison.size_counts
    intro = Markup("<p>{}</p>\n").format(
        f"Measured on {comparison.dataset_name}: {comparison.photo_count} photos with "
        f"{comparison.instance_count} annotated instances, of which {small} are small, {medium} "
        f"medium and {large} large."
    ) + _list(verdicts(comparison))
    write_page(
        path,
        title=title,
        intro=intro,
        sections=[
            Section("At a glance", side_by_side(_pareto(comparison), _sizes(comparison))),
            Section("Accuracy", _accuracy(comparison)),
            Section("Time", _time(comparison)),
            Section("Size", _table(comparison, "Size", measures_of("Size"))),
            Section("What the measures mean", _meanings()),
            Section("How this was measured", _method(comparison, command)),
        ],
    )


def pareto_front(models: Sequence[ComparedModel]) -> list[ComparedModel]:
    """The models that no other one beats in both mask AP and time of the network, fastest first."""
    front: list[ComparedModel] = []
    for model in sorted(models, key=lambda model: (_time_ms(model), -_mask_ap(model))):
        if not front or _mask_ap(model) > _mask_ap(front[-1]):
            front.append(model)
    return front


def draw_pareto(comparison: Comparison) -> Figure:
    """Mask AP against the network's time, with figures of others in a strip at the side."""
    cited = {c.name: c.values["mask_AP"] for c in comparison.cited if "mask_AP" in c.values}
    chart = Figure(figsize=_SIZE_IN, layout="constrained")
    plot, *strips = chart.subplots(
        1, 2 if cited else 1, sharey=True, squeeze=False, width_ratios=[3, 2] if cited else None
    )[0]
    times = [_time_ms(model) for model in comparison.models]
    ratio = max(times) / max(min(times), 1e-9)
    if ratio > _LOG_FROM:
        plot.set_xscale("log")
        labelled = (1, 3) if ratio > _FEW_LABELS_FROM else (1, 2, 5)
        plot.xaxis.set_major_locator(LogLocator(subs=labelled))
        plot.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        plot.xaxis.set_minor_formatter(NullFormatter())
    front = pareto_front(comparison.models)
    if len(front) > 1:
        plot.plot(
            [_time_ms(model) for model in front],
            [_mask_ap(model) for model in front],
            color="grey",
            linestyle="--",
            linewidth=1,
            zorder=0,
            label="not beaten in both",
        )
    for model, colour, marker in zip(comparison.models, cycle(_COLOURS), cycle(_MARKERS)):
        accuracy, time = model.estimates["mask_AP"], model.estimates["network_ms"]
        if accuracy.value is None or time.value is None:
            continue
        plot.errorbar(
            time.value,
            accuracy.value,
            xerr=_error(time.value, time.spread),
            yerr=_error(accuracy.value, accuracy.spread),
            fmt=marker,
            color=colour,
            capsize=3,
            elinewidth=1,
            label=fill(model.name, 24),
        )
    plot.margins(x=0.12, y=0.12)
    plot.set(xlabel="network, ms a photo", ylabel="mask AP")
    plot.grid(alpha=0.3)
    for strip in strips:
        _draw_cited(strip, cited)
    _legend_above(plot, chart, columns=2)
    return chart


def draw_sizes(comparison: Comparison) -> Figure:
    """Mask AP of small, medium and large instances, as bars with 95 % intervals."""
    keys = ("mask_AP", "mask_APs", "mask_APm", "mask_APl")
    words = ("all", "small", "medium", "large")
    counts = (comparison.instance_count, *comparison.size_counts)
    chart = Figure(figsize=_SIZE_IN, layout="constrained")
    axes = chart.subplots()
    width = 0.8 / len(comparison.models)
    for number, (model, colour) in enumerate(zip(comparison.models, cycle(_COLOURS), strict=False)):
        for group, key in enumerate(keys):
            estimate = model.estimates[key]
            left = group - 0.4 + number * width
            if estimate.value is None:
                axes.text(left + width / 2, 1, "–", horizontalalignment="center")
                continue
            axes.bar(
                left,
                estimate.value,
                width * 0.9,
                align="edge",
                color=colour,
                yerr=_error(estimate.value, estimate.spread),
                ecolor="black",
                capsize=2,
                error_kw={"elinewidth": 1},
                label=fill(model.name, 24) if group == 0 else None,
            )
    axes.set_xticks(
        range(len(keys)),
        [f"{word}\n({count})" for word, count in zip(words, counts, strict=True)],
    )
    axes.set(xlabel="size (annotated instances)", ylabel="mask AP", ylim=(0, 105))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _legend_above(axes, chart, columns=2)
    return chart


def draw_stages(comparison: Comparison, *, leave_out: Collection[str] = ()) -> Figure:
    """Median milliseconds of the stages, as bars on top of one another."""
    models = comparison.models
    chart = Figure(figsize=(_SIZE_IN[0], 1.6 + 0.4 * len(models)), layout="constrained")
    axes = chart.subplots()
    ends = [0.0] * len(models)
    for stage, colour in zip(STAGES, _COLOURS, strict=True):
        if stage in leave_out:
            continue
        widths = [model.estimates[f"{stage}_ms"].value or 0 for model in models]
        axes.barh(range(len(models)), widths, 0.6, left=ends, color=colour, label=stage)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for row, end in enumerate(ends):
        axes.text(end, row, f" {end:.0f}", verticalalignment="center")
    axes.set_yticks(range(len(models)), [fill(model.name, 16) for model in models])
    axes.set(xlabel="ms a photo", xlim=(0, 1.15 * max(ends)))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    _legend_above(axes, chart, columns=4)
    return chart


def _draw_cited(strip: Axes, values: Mapping[str, float]) -> None:
    """Figures of others without times; names are moved apart where they would overlap."""
    low, high = strip.get_ylim()
    low, high = min(low, *values.values()), max(high, *values.values())
    height = 0.14 * (high - low)  # of a name
    place = high
    for name, value in sorted(values.items(), key=lambda pair: -pair[1]):
        place = min(value, place - height)
        strip.plot([0, 0.12], [value, place], color="grey", linewidth=0.8)
        strip.plot(0, value, "o", color="grey", markerfacecolor="none")
        strip.annotate(fill(name, 17), (0.15, place), verticalalignment="center", fontsize="small")
        low = min(low, place - height)
    strip.set(xlim=(-0.1, 1), ylim=(low, high), xticks=[], xlabel="others *")
    strip.grid(axis="y", alpha=0.3)


def _pareto(comparison: Comparison) -> Markup:
    others = " * Reported by others, not measured here: see below." if comparison.cited else ""
    return figure(
        draw_pareto(comparison),
        alt="Mask AP against milliseconds of the network: "
        + "; ".join(
            f"{model.name} {_mask_ap(model):.1f} at {_time_ms(model):.1f} ms"
            for model in comparison.models
        ),
        caption="Higher is better, further left is faster. Upright bars: 95 % intervals. Level "
        "bars: the middle half of the runs. Where upright bars overlap, the difference may still "
        f"be certain: the tables tell.{others}",
    )


def _sizes(comparison: Comparison) -> Markup:
    return figure(
        draw_sizes(comparison),
        alt="Mask AP by size of instance; the same numbers as in the table of masks.",
        caption="Mask AP by size of instance, with 95 % intervals. Small is up to 32², medium up "
        "to 96² pixels. A size with few instances says little.",
    )


def _accuracy(comparison: Comparison) -> Markup:
    masks = [m for m in measures_of("Accuracy") if m.key.startswith("mask_")]
    boxes = [m for m in measures_of("Accuracy") if m.key.startswith("box_")]
    tables = _table(comparison, "Accuracy", masks) + _table(comparison, "Accuracy", boxes, note="")
    return tables + _cited_note(comparison)


def _time(comparison: Comparison) -> Markup:
    alt = "Milliseconds by stage; the same numbers as in the table below."
    charts = side_by_side(
        figure(
            draw_stages(comparison),
            alt=alt,
            caption="From the bytes of a JPEG to the bytes of the drawn JPEG. The numbers are sums "
            "of the stages’ medians.",
        ),
        figure(
            draw_stages(comparison, leave_out=["network"]),
            alt=f"Without the network. {alt}",
            caption="The same without the network.",
        ),
    )
    return charts + _table(comparison, "Time", measures_of("Time"))


def _table(
    comparison: Comparison, group: Group, measures: Sequence[Measure], *, note: str | None = None
) -> Markup:
    """A row for each model; figures of others, which are accuracies, at the end."""
    first, *others = comparison.models
    rows = [[first.name, *(_cell(m, first.estimates[m.key], is_first=True) for m in measures)]]
    rows += [[x.name, *(_cell(m, x.estimates[m.key]) for m in measures)] for x in others]
    if group == "Accuracy":
        rows += [
            [f"{c.name} *", *(value_text(m, c.values.get(m.key)) for m in measures)]
            for c in comparison.cited
        ]
    text = GROUP_NOTES[group] if note is None else note
    paragraph = Markup("<p>{}</p>\n").format(text) if text else Markup("")
    return paragraph + table(["", *(measure.title for measure in measures)], rows)


def _cell(measure: Measure, estimate: Estimate, *, is_first: bool = False) -> Markup:
    """A value, below it its spread, below that the change, which is bold if it is certain."""
    if estimate.value is None:
        return escape(value_text(measure, None))
    change = "" if is_first else change_text(measure, estimate)
    spread = estimate.change_spread
    if measure.group != "Accuracy":
        change = change.partition(" (")[0]  # there is no room for more
    elif spread is not None and not spread.low <= 0 <= spread.high:
        change = Markup("<strong>{}</strong>").format(change)
    lines = (spread_text(measure, estimate), change)
    small = Markup("").join(Markup("<small>{}</small>").format(line) for line in lines if line)
    return Markup("{} {}").format(value_text(measure, estimate.value), small)


def _cited_note(comparison: Comparison) -> Markup:
    if not comparison.cited:
        return Markup("")
    return Markup('<div class="fine"><p>{}</p>{}</div>').format(
        CITED_HEADING, _list([cited.note for cited in comparison.cited])
    )


def _meanings() -> Markup:
    entries = [
        Markup("<dt>{}</dt><dd>{}</dd>").format(measure.title, measure.meaning)
        for measure in MEASURES
    ]
    return Markup('<dl class="terms">{}</dl>').format(Markup("\n").join(entries))


def _method(comparison: Comparison, command: str) -> Markup:
    models = table(
        ["model", "version", "backbone", "typical photo scaled to", "computes in", "threads"],
        [
            [
                model.name,
                model.version,
                model.backbone,
                "{1} × {0} px".format(*model.input_size),
                model.arithmetic,
                model.threads,
            ]
            for model in comparison.models
        ],
    )
    load = ""
    if comparison.load is not None:
        load = f" Before it began, {comparison.load:.1f} programs were busy there in the mean."
    notes = [
        f"Machine: {comparison.machine}.{load}",
        f"Software: {comparison.software}.",
        "Accuracy: all photos, instances of score 0.05 and more.",
        "Intervals: as many photos as there are were drawn with replacement, "
        f"{comparison.resamples} times (seed {comparison.seed}); the middle 95 % of the results "
        "count. All models get the same draws, so the interval of a difference is that of the "
        "difference itself. They tell what other photos of the same kind would change, not what "
        "another training would. On few photos they are a little too narrow.",
        f"Time: {comparison.rounds} rounds. In each, one photo went through every model in turn, "
        "once untimed and once timed, at each model’s own threshold. The share of the first "
        "model’s time is the median over the rounds.",
        "Memory: a new process for each model, which serves it alone.",
        "GMACs: for the photo of median size, with the proposals and instances that it has.",
    ]
    return Markup("<pre>{}</pre>\n{}{}").format(command, models, _list(notes))


def _list(texts: Sequence[str]) -> Markup:
    if not texts:
        return Markup("")
    items = Markup("\n").join(Markup("<li>{}</li>").format(text) for text in texts)
    return Markup("<ul>\n{}\n</ul>\n").format(items)


def _legend_above(axes: Axes, chart: Figure, *, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    chart.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize="small",
    )


def _error(value: float, spread: Interval | None) -> list[list[float]] | None:
    """Lengths below and above, as matplotlib takes them."""
    if spread is None:
        return None
    return [[max(value - spread.low, 0)], [max(spread.high - value, 0)]]


def _mask_ap(model: ComparedModel) -> float:
    return model.estimates["mask_AP"].value or 0


def _time_ms(model: ComparedModel) -> float:
    return model.estimates["network_ms"].value or 0
