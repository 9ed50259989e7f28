"""The report and the model card of a training run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from maskserve.core.manifest import Manifest
from maskserve.datasets.types import Dataset
from maskserve.reporting.charts import (
    draw_learning_rate,
    draw_loss_parts,
    draw_losses,
    draw_quality,
    make_chart,
)
from maskserve.reporting.evaluation import Findings, evaluation_facts, evaluation_sections
from maskserve.reporting.history import read_results
from maskserve.reporting.page import (
    Section,
    facts,
    figure,
    picture,
    side_by_side,
    table,
    write_page,
)
from maskserve.reporting.wording import duration, quantity
from maskserve.runtime.files import write_file
from maskserve.runtime.image_io import read_image

__all__ = [
    "EXAMPLES_FILE",
    "REPORT_FILE",
    "PhotoCounts",
    "RunSummary",
    "count_photos",
    "describe_limits",
    "write_model_card",
    "write_run_report",
]

EXAMPLES_FILE = "training-examples.jpg"
REPORT_FILE = "report.html"

_FEW_TRAINED, _FEW_MEASURED = 200, 100


@dataclass(frozen=True, slots=True)
class PhotoCounts:
    """How much was annotated.

    Attributes:
        photos: All of them.
        instances: Without crowds.
        without: Photos in which nothing is annotated.
    """

    photos: int
    instances: int
    without: int


@dataclass(frozen=True, slots=True, eq=False)
class RunSummary:
    """What a run says of itself.

    Attributes:
        manifest: Of its model; the first entry of its metrics are those of the run's last
            validation.
        changed_settings: Those that differ from the defaults, by dotted key.
        train: What it learned from.
        backgrounds: Photos that show nothing, which it learned from as well.
        val: What it was validated on, and its threshold was chosen by.
        fold_mask_ap: Mask AP of each of the models that were measured in its place, on the photos
            that they had not learned from: the folds of a cross-validation, or the one run that
            a refit repeats; else nothing.
        step: Of the last validation.
        planned_steps: Which the run was to have.
        seconds: Of work until then.
        f1: At the threshold, 0..1.
        coverage_error: Mean error of coverage on validation photos, in percentage points.
        false_finds: On photos that show nothing, and that nothing was learned from or chosen by:
            their number, and that of instances found in them at the threshold; None if there
            are none.
    """

    manifest: Manifest
    changed_settings: Mapping[str, Any]
    train: PhotoCounts
    backgrounds: int
    val: PhotoCounts
    fold_mask_ap: tuple[float, ...]
    step: int
    planned_steps: int
    seconds: float
    f1: float
    coverage_error: float
    false_finds: tuple[int, int] | None


def count_photos(dataset: Dataset) -> PhotoCounts:
    """Count photos and annotated instances."""
    singles = [sum(not a.is_crowd for a in sample.annotations) for sample in dataset.samples]
    without = sum(not sample.annotations for sample in dataset.samples)
    return PhotoCounts(len(dataset), sum(singles), without)


def write_run_report(run: Path, summary: RunSummary, findings: Findings) -> Path:
    """Write ``report.html`` into a run folder: all of it on one self-contained page.

    Args:
        run: The folder; its ``results.csv`` and training examples are shown if they are there.
        summary: The run.
        findings: On its validation photos.

    Returns:
        The page.

    Raises:
        ImageError: A photo cannot be read.
        OutputError: The file cannot be written.
    """
    manifest = summary.manifest
    classes = ", ".join(manifest.classes[:8]) + (" …" if len(manifest.classes) > 8 else "")
    measured = f"on {quantity(summary.val.photos, 'photo')} that it did not learn from"
    if len(summary.fold_mask_ap) == 1:
        measured = (
            f"on {quantity(summary.val.photos, 'photo')} of them by another model, which was "
            "trained in the same way without them"
        )
    elif summary.fold_mask_ap:
        measured = (
            f"by cross-validation: on each of them by one of {len(summary.fold_mask_ap)} other "
            f"models that did not learn from it. Mask AP by fold: {_by_fold(summary)}"
        )
    intro = Markup(
        "<p>A Mask R-CNN with {} that finds: {}. It learned from {} with {}, and is measured here "
        "{}.</p>\n{}{}"
    ).format(
        manifest.backbone,
        classes,
        quantity(summary.train.photos, "photo"),
        quantity(summary.train.instances, "annotated thing"),
        measured,
        _unfinished(summary),
        facts(
            [
                *evaluation_facts(findings),
                ("training took", duration(summary.seconds)),
                ("steps", f"{summary.step}"),
            ]
        ),
    )
    sections = [
        Section("Training", _training(run, summary)),
        *evaluation_sections(findings),
        Section("Limits", _limits(summary)),
        Section("What next", _next_commands(run)),
    ]
    path = run / REPORT_FILE
    write_page(path, title=f"Training of {manifest.name}", intro=intro, sections=sections)
    return path


def write_model_card(path: Path, summary: RunSummary) -> None:
    """Write a model card (Mitchell et al., 1810.03993) in Markdown.

    Raises:
        OutputError: The file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("maskserve.reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("model_card.md").render(
        manifest=summary.manifest,
        run=summary,
        duration=duration(summary.seconds),
        settings=list(_setting_lines(summary.changed_settings)),
        limits=describe_limits(summary),
    )
    write_file(path, text)


def describe_limits(summary: RunSummary) -> list[str]:
    """What the numbers of a run do not show, as far as it can be read from the run itself."""
    train, val = summary.train, summary.val
    metrics = next(iter(summary.manifest.metrics.values()), {}).get("segm", {})
    if len(summary.fold_mask_ap) == 1:
        measured = (
            "The numbers are those of another model, which was trained in the same way without the "
            "photos that it is measured on. The model itself learned from these, too, so it may be "
            "a little better. They chose the threshold and were looked at during the other's "
            "training. Measure on photos that nothing was chosen by."
        )
    elif summary.fold_mask_ap:
        measured = (
            f"The numbers are those of {len(summary.fold_mask_ap)} models, each on the photos that "
            f"it did not learn from; mask AP by fold: {_by_fold(summary)}. The model itself "
            "learned from all photos, so it may be a little better. The photos chose the threshold."
        )
    else:
        measured = (
            "The validation photos chose the threshold and were looked at during training, so the "
            "numbers are a little too good. Measure on photos that nothing was chosen by."
        )
    limits = [measured]
    if val.photos < _FEW_MEASURED:
        limits.append(
            f"It is measured on {quantity(val.photos, 'photo')} only. Other photos give other "
            "numbers; see the likely range in the report."
        )
    if train.photos < _FEW_TRAINED:
        limits.append(
            f"It has seen {quantity(train.photos, 'photo')}. Other cameras, light, distances and "
            "surroundings than theirs are likely to do worse."
        )
    if train.without + summary.backgrounds == 0:
        limits.append(
            "Every training photo shows something to find. In photos without anything, false finds "
            "are likely; nobody has counted them."
        )
    elif summary.false_finds is None:
        limits.append("False finds in photos that show nothing were not counted.")
    if "APs" not in metrics:
        limits.append(
            "No annotated thing was smaller than 32 x 32 pixels, so nothing is known of those."
        )
    if "APm" in metrics and "APl" in metrics and metrics["APm"] < metrics["APl"] - 10:
        limits.append(
            f"It does worse on things of less than 96 x 96 pixels: mask AP {metrics['APm']:.0f}, "
            f"against {metrics['APl']:.0f} of larger ones."
        )
    side = summary.manifest.postprocess.mask_size
    limits.append(
        f"Outlines come from grids of {side} x {side} cells stretched over boxes: what is finer "
        f"than a {side}th of a thing is smoothed."
    )
    return limits


def _by_fold(summary: RunSummary) -> str:
    return ", ".join(f"{ap:.1f}" for ap in summary.fold_mask_ap)


def _unfinished(summary: RunSummary) -> str | Markup:
    if summary.step >= summary.planned_steps:
        return ""
    return Markup(
        "<p><strong>This training has not come to its end</strong>: the numbers are those after "
        "step {} of {}. To go on, call the same command again with <code>--resume</code>.</p>\n"
    ).format(summary.step, summary.planned_steps)


def _training(run: Path, summary: RunSummary) -> Markup:
    curves = read_results(run)
    charts = [
        figure(make_chart(partial(draw, curves=curves)), alt=alt)
        for draw, alt in (
            (draw_losses, "Loss on training and validation photos against steps"),
            (draw_quality, "AP on validation photos against steps"),
            (draw_loss_parts, "Parts of the training loss against steps"),
            (draw_learning_rate, "Learning rate against steps"),
        )
        if draw is not draw_quality or not summary.fold_mask_ap
    ]
    body = Markup(
        "<p>The <em>loss</em> is what training makes small: how wrong the network is, in numbers "
        "of its own. It should fall on both kinds of photos. AP is what counts; as long as it "
        "still rises at the end, more steps help. If it falls while the training loss goes on "
        "falling, the network learns the photos by heart: it needs more photos, or fewer "
        "steps.</p>\n{}"
    ).format(side_by_side(*charts))
    if len(summary.fold_mask_ap) > 1:
        body += Markup(
            "<p>AP against steps is in the reports of the folds, "
            "<code>folds/1/report.html</code> and so on.</p>\n"
        )
    if (run / EXAMPLES_FILE).exists():
        body += Markup(
            "<h3>What the network sees</h3>\n<p>The first training examples: photos are cropped, "
            "scaled, flipped and recoloured anew each time, and things are pasted from one into "
            "another, so that few photos teach more. If an outline is wrong here, the annotation "
            "is.</p>\n{}"
        ).format(
            picture(read_image(run / EXAMPLES_FILE), alt="Augmented training photos with outlines")
        )
    lines = list(_setting_lines(summary.changed_settings))
    settings = (
        table(["setting", "value"], [line.split(" = ", 1) for line in lines])
        if lines
        else Markup("<p>All settings are the defaults.</p>\n")
    )
    return body + Markup(
        "<details><summary>Settings that differ from the defaults</summary>\n{}</details>\n"
        '<p class="fine">Data: {}. Initial weights: {}. Seed: {}. Computer: {}.</p>'
    ).format(
        settings,
        summary.manifest.provenance.data,
        summary.manifest.provenance.initial_weights,
        summary.manifest.provenance.seed,
        summary.manifest.provenance.trained_on,
    )


def _limits(summary: RunSummary) -> Markup:
    items = Markup("\n").join(
        Markup("<li>{}</li>").format(limit) for limit in describe_limits(summary)
    )
    false_finds = ""
    if summary.false_finds is not None:
        photos, instances = summary.false_finds
        false_finds = Markup(
            "<p>False finds at the threshold in {} that show nothing, and that nothing was learned "
            "from or chosen by: <strong>{}</strong>.</p>\n"
        ).format(quantity(photos, "photo"), instances)
    return false_finds + Markup("<ul>\n{}\n</ul>").format(items)


def _next_commands(run: Path) -> Markup:
    return Markup(
        "<p>Measure it on photos that were never used, make a bundle of it, and serve that:</p>\n"
        "<pre>maskserve evaluate {run} --data DIR --split val --out results\n"
        "maskserve export {run} --out model.zip\n"
        "maskserve serve --model model.zip</pre>\n"
        "<p>Write this page again, such as after an update of maskserve:</p>\n"
        "<pre>maskserve report {run}</pre>"
    ).format(run=shlex.quote(str(run)))


def _setting_lines(settings: Mapping[str, Any]) -> Iterator[str]:
    """As in a TOML file with dotted keys."""
    for key, value in settings.items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
