"""The parts of a report that say how good a model is and where it errs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from maskserve.core.manifest import Manifest
from maskserve.core.types import Instances
from maskserve.datasets.types import Dataset
from maskserve.evaluation import (
    ERROR_KINDS,
    METRIC_NAMES,
    Calibration,
    ErrorAnalysis,
    ErrorKind,
    Metrics,
    Mistake,
    PhotoResult,
    analyse_errors,
    annotated_instances,
    calibrate_threshold,
    coverage_error,
    draw_panel,
    judge_photos,
    precision_recall,
)
from maskserve.evaluation.bootstrap import (
    Interval,
    draw_resamples,
    percentile_interval,
    resample_metrics,
)
from maskserve.evaluation.gallery import Window
from maskserve.evaluation.matching import NONE, compare_photo
from maskserve.reporting.charts import (
    ERROR_NAMES,
    MOST_CLASSES,
    draw_confusion,
    draw_coverage,
    draw_error_costs,
    draw_precision_recall,
    draw_thresholds,
    make_chart,
)
from maskserve.reporting.page import (
    Cell,
    Section,
    facts,
    figure,
    pair,
    picture,
    side_by_side,
    table,
    write_page,
)
from maskserve.runtime.image_io import read_image

__all__ = [
    "Findings",
    "evaluation_facts",
    "evaluation_sections",
    "examine",
    "write_evaluation_report",
]

_WORST, _BEST = 6, 3
_MISTAKES_SHOWN = 4
_PANEL = (440, 490)
_CROP = (242, 242)
_FEW_CLASSES = 8

_TERMS = (
    ("IoU", "How well two outlines agree: the area that both cover over the area that either "
     "covers. 0.5 is roughly right, 0.9 looks exact, 1 is perfect."),
    ("AP50", "Average precision with an IoU of 0.5 or more counted as right: does it find the "
     "things, and little else? 100 is perfect."),
    ("AP75", "The same at 0.75: does it outline them well, too?"),
    ("AP", "The mean over IoUs from 0.5 to 0.95, the number that papers give first."),
    ("APs, APm, APl", "AP of small things only (up to 32 x 32 pixels of the photo), of medium "
     "ones (up to 96 x 96) and of large ones."),
    ("AR100", "Share of the things that is found at all, whatever else is, over the same IoUs."),
)  # fmt: skip

_KINDS: dict[ErrorKind, str] = {
    "missed": "annotated, but nothing was found there at the threshold",
    "false": "found, but nothing is annotated there",
    "duplicate": "the same thing found once more",
    "location": "its box overlaps an annotation, with an IoU of 0.1 to 0.5",
    "mask": "its box fits, but the outline has an IoU below 0.5",
    "class": "its outline fits a thing of another class",
}


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Everything that a report says of predictions.

    Attributes:
        dataset: The photos.
        metrics: With the predictions.
        min_score: The model's threshold.
        calibration: What other thresholds would do on these photos.
        ap_interval: Where mask AP may well lie on other photos of this kind, 95 %; None where
            there is no AP.
        precision: As of :func:`maskserve.evaluation.precision_recall`.
        errors: At the threshold.
        photos: At the threshold, in the order of the data set.
    """

    dataset: Dataset
    metrics: Metrics
    min_score: float
    calibration: Calibration
    ap_interval: Interval | None
    precision: npt.NDArray[np.float64]
    errors: ErrorAnalysis
    photos: tuple[PhotoResult, ...]

    def shown(self, photo: int) -> Instances:
        """What was found in a photo, by its index, at the threshold."""
        instances = self.metrics.predictions[photo]
        return instances.select(instances.scores >= self.min_score)


def examine(dataset: Dataset, metrics: Metrics, *, min_score: float) -> Findings:
    """Analyse predictions for a report.

    Args:
        dataset: Annotated photos.
        metrics: Of predictions on them that were made with a low threshold.
        min_score: The threshold of everyday use.
    """
    predictions = metrics.predictions
    resamples = draw_resamples(len(dataset), count=1000, seed=0)
    resampled = resample_metrics("segm", dataset, predictions, resamples=resamples)
    return Findings(
        dataset=dataset,
        metrics=metrics,
        min_score=min_score,
        calibration=calibrate_threshold(dataset, predictions),
        ap_interval=percentile_interval(resampled["AP"]),
        precision=precision_recall(dataset, predictions),
        errors=analyse_errors(dataset, predictions, min_score=min_score),
        photos=judge_photos(dataset, predictions, min_score=min_score),
    )


def write_evaluation_report(path: Path, findings: Findings, manifest: Manifest) -> None:
    """One self-contained page on a model's answers for a data set.

    Raises:
        ImageError: A photo cannot be read.
        OutputError: The file cannot be written.
    """
    intro = Markup("<p>{} {} ({}), measured on {}.</p>\n{}").format(
        manifest.name,
        manifest.version,
        manifest.backbone,
        _describe(findings.metrics),
        facts(evaluation_facts(findings)),
    )
    write_page(
        path,
        title=f"{manifest.name} on {findings.dataset.name}",
        intro=intro,
        sections=evaluation_sections(findings),
    )


def evaluation_facts(findings: Findings) -> list[tuple[str, str]]:
    """What somebody wants to know first."""
    interval = findings.ap_interval
    annotated = findings.metrics.instance_count
    right = sum(photo.right for photo in findings.photos)
    spread = f" ({interval.low:.0f} to {interval.high:.0f})" if interval else ""
    return [
        ("mask AP (likely range)", f"{_number(findings.metrics.segm['AP'])}{spread}"),
        ("mask AP50", _number(findings.metrics.segm["AP50"])),
        ("box AP", _number(findings.metrics.bbox["AP"])),
        ("confidence threshold", f"{findings.min_score:.2f}"),
        ("found at the threshold", f"{right} of {annotated}"),
        ("false at the threshold", str(sum(photo.false for photo in findings.photos))),
        ("coverage is off by", f"{coverage_error(findings.photos):.1f} points"),
        ("photos", f"{len(findings.dataset)}"),
    ]  # fmt: skip


def evaluation_sections(findings: Findings) -> list[Section]:
    """Numbers, threshold, coverage, mistakes, worst and best photos, all photos.

    Raises:
        ImageError: A photo cannot be read.
    """
    ranked = sorted(findings.photos, key=lambda photo: (photo.quality, -photo.annotated))
    worst = ranked[: min(_WORST, len(ranked))]
    best = ranked[len(worst) :][-_BEST:][::-1]
    sections = [
        Section("How good it is", _numbers(findings)),
        Section("The threshold", _threshold(findings)),
        Section("Covered area", _coverage(findings)),
        Section("What goes wrong", _mistakes(findings)),
    ]
    if worst:
        sections.append(Section("Worst photos", _photos(findings, worst)))
    if best:
        sections.append(Section("Best photos", _photos(findings, best)))
    return [*sections, Section("All photos", _photo_table(ranked))]


def _numbers(findings: Findings) -> Markup:
    metrics = findings.metrics
    of_classes = [
        (name, by["segm"]) for name, by in metrics.per_class.items() if by["segm"]["AP"] is not None
    ]
    classes: str | Markup = ""
    if len(metrics.per_class) > 1:
        is_open = " open" if len(of_classes) <= _FEW_CLASSES else ""
        classes = Markup(
            "<details{}><summary>Masks of each class</summary>\n{}</details>\n"
        ).format(is_open, _metrics_table(of_classes))
    interval = findings.ap_interval
    trust = (
        Markup(
            "<p>These are few photos, and other photos would give other numbers: the mask AP may "
            "well lie between {} and {} (95 % of samples drawn from these photos do). Take smaller "
            "differences between two models for chance.</p>\n"
        ).format(f"{interval.low:.1f}", f"{interval.high:.1f}")
        if interval and len(findings.dataset) < 500
        else ""
    )
    terms = Markup("\n").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*term) for term in _TERMS)
    return Markup(
        "<p>Measured on {}. The numbers are COCO's average precision, computed by pycocotools; "
        "“–” stands for not measured, where there is nothing of that size.</p>\n{}{}{}"
        '<details><summary>What the numbers mean</summary>\n<dl class="terms">{}</dl></details>\n'
    ).format(
        _describe(metrics),
        _metrics_table([("boxes", metrics.bbox), ("masks", metrics.segm)]),
        trust,
        classes,
        terms,
    )


def _metrics_table(rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> Markup:
    return table(
        ["", *METRIC_NAMES],
        [[title, *(values[name] for name in METRIC_NAMES)] for title, values in rows],
    )


def _threshold(findings: Findings) -> Markup:
    draw = partial(draw_thresholds, min_score=findings.min_score)
    return Markup(
        "<p>The model is more or less sure of each thing it finds: it gives it a confidence. Only "
        "what reaches the threshold is shown. A higher one shows fewer false things and misses "
        "more; <em>precision</em> is the share of shown things that are right, <em>recall</em> the "
        "share of annotated things that are shown, and F1 their balance. Right means: the right "
        "class, and an IoU of 0.5 or more.</p>\n"
        "<p>The threshold is <strong>{}</strong>{}</p>\n{}"
    ).format(
        f"{findings.min_score:.2f}",
        _compare_threshold(findings),
        side_by_side(
            figure(
                make_chart(lambda axes: draw(axes, findings.calibration)),
                alt="Precision, recall and F1 against the confidence threshold",
            ),
            figure(
                make_chart(lambda axes: draw_precision_recall(axes, findings.precision)),
                alt="Precision against recall at IoU 0.5, 0.75 and in the mean",
                caption="The area below a line is its AP. Further to the upper right is better.",
            ),
        ),
    )


def _compare_threshold(findings: Findings) -> str:
    chosen, best = findings.min_score, findings.calibration
    if abs(best.threshold - chosen) < 0.005:
        return f", where F1 is best: {100 * best.f1:.1f} %."
    return (
        f". On these photos alone, F1 would be best at {best.threshold:.2f}: {100 * best.f1:.1f} %."
    )


def _coverage(findings: Findings) -> Markup:
    return Markup(
        "<p>How much of a photo is covered, overlaps counted once. On average over the photos, "
        "what the model says is off by <strong>{} percentage points</strong>.</p>\n{}"
    ).format(
        f"{coverage_error(findings.photos):.2f}",
        side_by_side(
            figure(
                make_chart(lambda axes: draw_coverage(axes, findings.photos)),
                alt="Found against annotated coverage, a dot for each photo",
                caption="On the line: just right. Below it: too little was found.",
            ),
            table(
                ["farthest off", "annotated %", "found %"],
                [
                    [photo.name, photo.annotated_percent, photo.found_percent]
                    for photo in sorted(
                        findings.photos,
                        key=lambda photo: -abs(photo.found_percent - photo.annotated_percent),
                    )[:6]
                ],
            ),
        ),
    )


def _mistakes(findings: Findings) -> Markup:
    errors = findings.errors
    several_classes = len(findings.dataset.categories) > 1
    kinds = [kind for kind in ERROR_KINDS if kind != "class" or several_classes]
    rows: list[list[Cell]] = [
        [ERROR_NAMES[kind], _KINDS[kind], errors.count(kind), errors.ap50_without[kind]]
        for kind in kinds
    ]
    class_names = findings.dataset.categories.names
    confusion = make_chart(
        lambda axes: draw_confusion(axes, errors.confusion, class_names),
        size=(5, 3.4) if len(class_names) <= 4 else (6.4, 5.6),
    )
    body = Markup(
        "<p>Counts are at the threshold. What a kind of mistake costs is the rise of mask AP50, "
        "now {}, if all mistakes of that kind were put right and nothing else; there, things of "
        "any confidence count. The longest bar is where work pays off most. The kinds are those of "
        "TIDE (Bolya et al. 2020), with “badly masked” added.</p>\n{}{}"
    ).format(
        f"{errors.ap50:.1f}",
        table(["mistake", "meaning", "count", "AP50 without it"], rows),
        side_by_side(
            figure(
                make_chart(lambda axes: draw_error_costs(axes, errors, kinds=kinds)),
                alt="Points of mask AP50 that each kind of mistake costs",
            ),
            figure(
                confusion,
                alt="Confusion matrix with background",
                caption="Each row: what became of the annotated things. Last row: what was found "
                "where nothing is annotated. A badly outlined thing counts in both."
                + (" The most frequent classes only." if len(class_names) > MOST_CLASSES else ""),
            ),
        ),
    )
    for kind in kinds:
        examples = islice(_worst_first(findings, kind), _MISTAKES_SHOWN)
        drawn = [_draw_mistake(findings, mistake) for mistake in examples]
        if drawn:
            body += Markup("<h3>{}: {}</h3>\n{}").format(
                ERROR_NAMES[kind].capitalize(), _KINDS[kind], side_by_side(*drawn)
            )
    return body


def _worst_first(findings: Findings, kind: ErrorKind) -> Iterator[Mistake]:
    """Missed: the largest first. All others: that of which the model was most sure."""

    def weight(mistake: Mistake) -> float:
        if mistake.instance != NONE:
            return float(findings.metrics.predictions[mistake.photo].scores[mistake.instance])
        sample = findings.dataset.samples[mistake.photo]
        return sample.annotations[mistake.annotation].area_px(sample.image_size)

    return iter(
        sorted((m for m in findings.errors.mistakes if m.kind == kind), key=weight, reverse=True)
    )


def _draw_mistake(findings: Findings, mistake: Mistake) -> Markup:
    """Its surroundings twice, as annotated and as found; of the wrong side only the mistake."""
    sample = findings.dataset.samples[mistake.photo]
    annotated = annotated_instances(sample, findings.dataset.categories.names)
    found = findings.shown(mistake.photo)
    boxes = []
    note = sample.image_path.name
    if mistake.annotation != NONE:
        boxes.append(sample.annotations[mistake.annotation].box_xyxy(sample.image_size))
    if mistake.instance != NONE:
        found = findings.metrics.predictions[mistake.photo]
        boxes.append(found.boxes_xyxy[mistake.instance])
        note = f"{note}, confidence {found.scores[mistake.instance]:.2f}"
        found = found.select(np.arange(len(found)) == mistake.instance)
    else:
        note = f"{note}, {_confidence_of_missed(findings, mistake)}"
        singles = [k for k, a in enumerate(sample.annotations) if not a.is_crowd]
        annotated = annotated.select(np.array(singles) == mistake.annotation)
    window = _surroundings(np.array(boxes), sample.image_size)
    image = read_image(sample.image_path)
    panels = [
        draw_panel(image, instances, cell_size=_CROP, window=window, labels=False)
        for instances in (annotated, found)
    ]
    gap = np.full((panels[0].shape[0], 4, 3), 128, dtype=np.uint8)
    both = np.concatenate([panels[0], gap, panels[1]], axis=1)
    return picture(both, alt=f"{note}: annotated on the left, found on the right", caption=note)


def _confidence_of_missed(findings: Findings, missed: Mistake) -> str:
    """Whether a lower threshold would have shown it."""
    overlaps = compare_photo(
        findings.dataset.samples[missed.photo],
        findings.metrics.predictions[missed.photo],
        findings.dataset.categories,
    )
    unsure = (
        (overlaps.scores < findings.min_score)
        & (overlaps.found_classes == overlaps.classes[missed.annotation])
        & (overlaps.mask_iou[:, missed.annotation] >= 0.5)
    )
    if unsure.any():
        return f"found with a confidence of only {overlaps.scores[unsure].max():.2f}"
    return "not found with any confidence"


def _surroundings(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> Window:
    """A square around boxes, twice as large and no less than 64 pixels, moved into the photo."""
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = round(2 * max(float(max(right - left, bottom - top)), 32.0))
    width, height = min(side, size[1]), min(side, size[0])
    x = min(max(round((left + right - width) / 2), 0), size[1] - width)
    y = min(max(round((top + bottom - height) / 2), 0), size[0] - height)
    return x, y, x + width, y + height


def _photos(findings: Findings, results: Sequence[PhotoResult]) -> Markup:
    intro = Markup(
        "<p>Annotated on the left (on a phone: above), found at the threshold on the right. The "
        "quality of a photo is 1 if everything in it was found and outlined exactly, and nothing "
        "else was found.</p>\n"
    )
    return intro + Markup("").join(_photo(findings, result) for result in results)


def _photo(findings: Findings, result: PhotoResult) -> Markup:
    sample = findings.dataset.samples[result.photo]
    image = read_image(sample.image_path)
    annotated = annotated_instances(sample, findings.dataset.categories.names)
    found = findings.shown(result.photo)
    several_classes = len(findings.dataset.categories) > 1
    return Markup("<h3>{}: quality {}</h3>\n{}").format(
        result.name,
        f"{result.quality:.2f}",
        pair(
            picture(
                draw_panel(image, annotated, cell_size=_PANEL, labels=several_classes),
                alt=f"{result.name} as annotated",
                caption=f"{result.annotated} annotated, "
                f"covering {result.annotated_percent:.1f} % of the photo",
            ),
            picture(
                draw_panel(image, found, cell_size=_PANEL),
                alt=f"{result.name} as found",
                caption=f"{result.right} of them found, {result.false} false, "
                f"covering {result.found_percent:.1f} %",
            ),
        ),
    )


def _photo_table(ranked: Sequence[PhotoResult]) -> Markup:
    return Markup(
        "<p>From the worst to the best. Quality is panoptic quality (Kirillov et al. 2019): the "
        "sum of the IoUs of all right things over the number of things, of which a missed or a "
        "false one counts half.</p>\n<details><summary>{} photos</summary>\n{}</details>"
    ).format(
        len(ranked),
        table(
            ["photo", "quality", "annotated", "found", "false", "annotated %", "found %"],
            [
                [
                    photo.name,
                    f"{photo.quality:.2f}",
                    photo.annotated,
                    photo.right,
                    photo.false,
                    photo.annotated_percent,
                    photo.found_percent,
                ]
                for photo in ranked
            ],
        ),
    )


def _describe(metrics: Metrics) -> str:
    return (
        f"{metrics.dataset_name}: {metrics.photo_count} photos, {metrics.instance_count} instances"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
