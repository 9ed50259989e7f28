"""Several models on the same photos: how good, how fast, how large."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from maskserve import __version__
from maskserve.benchmarking.machine import describe_machine, mean_load
from maskserve.benchmarking.stages import STAGES, time_stages
from maskserve.core.errors import DatasetError, ParameterError
from maskserve.datasets.types import Dataset, Sample
from maskserve.evaluation.bootstrap import (
    Interval,
    draw_resamples,
    percentile_interval,
    resample_metrics,
)
from maskserve.evaluation.citations import CitedModel
from maskserve.evaluation.coco import Kind, predict_dataset, require_common_class
from maskserve.evaluation.measures import accuracy_key
from maskserve.runtime.bundle import Bundle, find_bundle, read_bundle
from maskserve.runtime.image_io import encode_image, read_image
from maskserve.runtime.memory import measure_peak_memory
from maskserve.runtime.openvino_engine import Precision, measure_cost
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.preprocess import resized_size, to_graph_input
from maskserve.runtime.registry import load_engine

__all__ = [
    "Candidate",
    "ComparedModel",
    "Comparison",
    "Estimate",
    "compare_models",
    "load_candidates",
]

OnProgress = Callable[[str, int, int], None]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_KINDS: tuple[Kind, ...] = get_args(Kind)
_MEMORY_PHOTOS = 3
_MIDDLE_HALF = 0.5
_MIN_SCORE = 0.05  # as in maskserve.evaluation.evaluate
_CLOCK_MS = 1e-4


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, how sure it is, and how it compares with the first model's.

    Attributes:
        value: None if it could not be measured.
        spread: Of an accuracy the 95 % interval, of a time the middle half of the runs.
        change: Of an accuracy the difference to the first model's, of others the ratio; of the
            first model itself 0 and 1.
        change_spread: As ``spread``, of ``change``. Models are compared on the same resamples
            and in the same rounds, so this is much narrower than the two spreads suggest.
    """

    value: float | None
    spread: Interval | None = None
    change: float | None = None
    change_spread: Interval | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """A model that is ready to be compared.

    Attributes:
        name: Unlike those of the others.
        bundle: What was read.
        predictor: The model itself.
        arithmetic: In which it computes, such as ``bf16``.
        threads: Of the CPU, which one inference uses.
    """

    name: str
    bundle: Bundle
    predictor: EnginePredictor
    arithmetic: str
    threads: int


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """A model and what was measured.

    Attributes:
        name: Unlike those of the others.
        version: As the manifest says it.
        backbone: As the manifest names it.
        input_size: (height, width) to which it scales the photo whose operations were counted.
        arithmetic: In which it computed, such as ``bf16``.
        threads: Of the CPU, which one inference used.
        estimates: By :attr:`Measure.key`, of all :data:`MEASURES`.
    """

    name: str
    version: str
    backbone: str
    input_size: tuple[int, int]
    arithmetic: str
    threads: int
    estimates: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models side by side.

    Attributes:
        size_counts: Annotated instances that COCO calls small, medium and large, without crowds.
        models: At least one; the others are compared with the first.
        cited: Figures of others, which nobody measured here.
        machine: On which it was measured, in words.
        load: How many programs were busy at the start, in the mean of a minute; None on Windows.
        software: With which, and in which versions, in words.
        rounds: How often stages were timed.
        resamples: How often photos were drawn for the intervals.
    """

    dataset_name: str
    photo_count: int
    size_counts: tuple[int, int, int]
    models: tuple[ComparedModel, ...]
    cited: tuple[CitedModel, ...]
    machine: str
    load: float | None
    software: str
    rounds: int
    resamples: int
    seed: int

    @property
    def instance_count(self) -> int:
        return sum(self.size_counts)


def load_candidates(
    names_or_paths: Sequence[str], *, precision: Precision = "auto"
) -> list[Candidate]:
    """Load the models to compare, each named as short as is clear.

    Raises:
        ParameterError: One of them is given twice.
        UnknownModelError: There is neither such a name nor such a path.
        BundleError: A bundle is damaged, or too new.
    """
    names = [Path(given).resolve().name.removesuffix(".zip") for given in names_or_paths]
    candidates: list[Candidate] = []
    for given, short in zip(names_or_paths, names, strict=True):
        name = short if names.count(short) == 1 else given
        if any(name == candidate.name for candidate in candidates):
            raise ParameterError(f"“{given}” is named twice.", hint="Name each model once.")
        bundle = read_bundle(find_bundle(given))
        engine = load_engine(bundle, precision=precision)
        predictor = EnginePredictor(engine, bundle.manifest)
        candidates.append(Candidate(name, bundle, predictor, engine.arithmetic, engine.threads))
    return candidates


def compare_models(
    candidates: Sequence[Candidate],
    dataset: Dataset,
    *,
    cited: Sequence[CitedModel] = (),
    precision: Precision = "auto",
    rounds: int = 30,
    resamples: int = 1000,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Measure models on the same photos and the same machine.

    Args:
        candidates: At least one; the others are compared with the first.
        dataset: Annotated photos.
        cited: Figures of others to show beside.
        precision: With which the candidates were loaded.
        rounds: How often to time the stages.
        resamples: How often to draw photos for the intervals; 0 for none.
        seed: Of the resamples.
        on_progress: Is told the step, how much of it is done, and of how much.

    Raises:
        DatasetError: A model has none of the data set's classes, or a photo does not have the
            size that its annotations are for.
        ImageError: A photo cannot be read.
        EngineError: A model failed.
    """
    report = on_progress or _report_nothing
    load = mean_load()
    for candidate in candidates:
        try:
            require_common_class(candidate.bundle.manifest.classes, dataset)
        except DatasetError as error:
            raise DatasetError(f"{candidate.name}: {error.message}", hint=error.hint) from None

    by_size = sorted(dataset.samples, key=lambda sample: prod(sample.image_size))
    typical = by_size[len(by_size) // 2]
    count = min(rounds, len(dataset))
    samples = [dataset.samples[i * len(dataset) // count] for i in range(count)]
    sizes = []
    for number, candidate in enumerate(candidates):
        report("Counting operations, measuring memory", number, len(candidates))
        sizes.append(_measure_size(candidate, typical, samples[:_MEMORY_PHOTOS], precision))
    times = time_stages(
        [candidate.predictor for candidate in candidates],
        [_jpeg_of(sample) for sample in samples],
        rounds=rounds,
        on_progress=partial(report, "Timing, round"),
    )
    # The first one is no resample, but the data set as it is.
    drawn = np.ones((1, len(dataset)), dtype=np.int64)
    resampled = draw_resamples(len(dataset), count=resamples, seed=seed)
    drawn = np.concatenate([drawn, resampled])
    accuracies = [_resample(candidate, dataset, drawn, report) for candidate in candidates]
    of_models = [
        {key: _estimate_accuracy(of_model[key], accuracies[0][key]) for key in of_model}
        | _estimate_times(times[i], times[0])
        | {key: _estimate_size(sizes[i][key], sizes[0][key]) for key in sizes[i]}
        for i, of_model in enumerate(accuracies)
    ]
    return Comparison(
        dataset_name=dataset.name,
        photo_count=len(dataset),
        size_counts=_count_by_size(dataset),
        models=tuple(
            ComparedModel(
                name=candidate.name,
                version=candidate.bundle.manifest.version,
                backbone=candidate.bundle.manifest.backbone,
                input_size=resized_size(typical.image_size, candidate.bundle.manifest.preprocess),
                arithmetic=candidate.arithmetic,
                threads=candidate.threads,
                estimates=estimates,
            )
            for candidate, estimates in zip(candidates, of_models, strict=True)
        ),
        cited=tuple(cited),
        machine=describe_machine(),
        load=load,
        software=_describe_software(),
        rounds=rounds,
        resamples=resamples,
        seed=seed,
    )


def _report_nothing(_step: str, _done: int, _total: int) -> None:
    pass


def _measure_size(
    candidate: Candidate, typical: Sample, samples: Sequence[Sample], precision: Precision
) -> dict[str, float | None]:
    """The measures of the group “Size”."""
    manifest = candidate.bundle.manifest
    cost = measure_cost(
        candidate.bundle.model,
        to_graph_input(read_image(typical.image_path), manifest.preprocess),
        min_score=manifest.postprocess.min_score,
    )
    memory = measure_peak_memory(
        candidate.bundle.path, [sample.image_path for sample in samples], precision=precision
    )
    return {
        "peak_memory_mb": None if memory is None else memory.peak_bytes / 1e6,
        "base_memory_mb": None if memory is None else memory.base_bytes / 1e6,
        "file_mb": len(candidate.bundle.model) / 1e6,
        "parameters_m": cost.parameters / 1e6,
        "gmacs": cost.macs / 1e9,
    }


def _resample(
    candidate: Candidate, dataset: Dataset, drawn: IntArray, report: OnProgress
) -> dict[str, FloatArray]:
    """The measures of the group “Accuracy”, as of :func:`resample_metrics`."""
    predictions = predict_dataset(
        candidate.predictor,
        dataset,
        min_score=_MIN_SCORE,
        on_progress=partial(report, f"Evaluating {candidate.name}"),
    )
    return {
        accuracy_key(kind, name): values
        for kind in _KINDS
        for name, values in resample_metrics(kind, dataset, predictions, resamples=drawn).items()
    }


def _estimate_accuracy(samples: FloatArray, of_first: FloatArray) -> Estimate:
    """From values of which the first one is that of the data set as it is."""
    change = samples - of_first
    return Estimate(
        _number(samples[0]),
        _interval(samples[1:]),
        _number(change[0]),
        _interval(change[1:]),
    )


def _interval(resampled: FloatArray) -> Interval | None:
    """None if all draws give the same, as with one photo: that is no certainty."""
    interval = percentile_interval(resampled)
    return interval if interval is not None and interval.low < interval.high else None


def _estimate_times(times: FloatArray, of_first: FloatArray) -> dict[str, Estimate]:
    """The measures of the group “Time”, from milliseconds by round and stage."""
    estimates = {}
    for i, stage in enumerate((*STAGES, "total")):
        own, first = ((x[:, i] if i < len(STAGES) else x.sum(axis=1)) for x in (times, of_first))
        ratio = own / np.maximum(first, _CLOCK_MS)
        estimates[f"{stage}_ms"] = Estimate(
            float(np.median(own)),
            percentile_interval(own, level=_MIDDLE_HALF),
            float(np.median(ratio)),
            percentile_interval(ratio, level=_MIDDLE_HALF),
        )
    return estimates


def _estimate_size(value: float | None, of_first: float | None) -> Estimate:
    """Without spread: it is the same each time, or nearly so."""
    return Estimate(value, change=value / of_first if value is not None and of_first else None)


def _count_by_size(dataset: Dataset) -> tuple[int, int, int]:
    areas = [
        annotation.area_px(sample.image_size)
        for sample in dataset.samples
        for annotation in sample.annotations
        if not annotation.is_crowd
    ]
    small = sum(area <= 32**2 for area in areas)
    large = sum(area > 96**2 for area in areas)
    return small, len(areas) - small - large, large


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _jpeg_of(sample: Sample) -> bytes:
    """The photo's file if it is a JPEG, else the photo as a JPEG."""
    if sample.image_path.suffix.lower() in (".jpg", ".jpeg"):
        return sample.image_path.read_bytes()
    return encode_image(read_image(sample.image_path), "image/jpeg", quality=95)


def _describe_software() -> str:
    packages = {"OpenVINO": "openvino", "OpenCV": "opencv-python-headless", "Pillow": "pillow"}
    versions = [f"{name} {version(package)}" for name, package in packages.items()]
    return ", ".join([f"maskserve {__version__}", *versions, f"Python {platform.python_version()}"])
