"""A training run and its folder.

RUN/settings.json        resolved settings, data, split, initial weights, machine
RUN/metrics.csv          losses and validation AP by step
RUN/curves.png           the same as a picture
RUN/gallery.jpg          validation photos: annotated, and predicted
RUN/validation.json      AP and calibrated threshold of the last validation
RUN/weights.safetensors  averaged weights of the last validation
RUN/last.ckpt            everything that --resume needs
RUN/logs/                Lightning's own log of each start
"""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import TrainingError
from maskserve.core.manifest import Manifest, Postprocess, Provenance
from maskserve.datasets import Dataset, Sample, available_splits, load_dataset, split_dataset
from maskserve.evaluation import evaluate
from maskserve.evaluation.calibration import calibrate_threshold
from maskserve.evaluation.gallery import draw_gallery
from maskserve.models import InferenceNetwork, TorchEngine, build_model, initialise
from maskserve.models.checkpoint import read_weights, write_weights
from maskserve.runtime.files import write_file
from maskserve.runtime.image_io import read_image, write_image
from maskserve.runtime.predictor import EnginePredictor
from maskserve.training.config import TrainSettings, settings_sha256
from maskserve.training.data import StepSampler, TrainingExamples, ValidationExamples, collate
from maskserve.training.module import MaskRcnnModule
from maskserve.training.report import draw_curves, merge_metrics

__all__ = ["PROBE_FILE", "RunRecord", "Validation", "load_run", "load_run_predictor", "train"]

SETTINGS_FILE = "settings.json"
VALIDATION_FILE = "validation.json"
WEIGHTS_FILE = "weights.safetensors"
CHECKPOINT_FILE = "last.ckpt"
PROBE_FILE = "probe.jpg"

_MAX_INSTANCES = 100


class RunRecord(BaseModel):
    """``settings.json``: all that is needed to understand a run or to do it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    settings_sha256: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    data: str
    train_photos: tuple[str, ...]
    val_photos: tuple[str, ...]
    initial_weights: str
    started: str
    machine: str

    def manifest(self, validation: Validation | None = None) -> Manifest:
        """The run's model as the predictor and the bundle describe it; without files."""
        settings = self.settings
        postprocess = Postprocess(max_instances=_MAX_INSTANCES)
        metrics = {}
        if validation is not None:
            postprocess = postprocess.model_copy(update={"min_score": validation.min_score})
            metrics = {_quantity(len(self.val_photos), "validation photo"): validation.metrics}
        return Manifest(
            name=settings.name,
            version=self.started[:10].replace("-", "."),
            licence="unknown",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=settings.model,
            classes=self.classes,
            category_ids=self.category_ids,
            preprocess=settings.preprocess,
            postprocess=postprocess,
            metrics=metrics,
            provenance=Provenance(
                data=self.data,
                initial_weights=self.initial_weights,
                settings=settings.model_dump(mode="json"),
                settings_sha256=self.settings_sha256,
                seed=settings.seed,
                trained_on=f"{self.machine}, started {self.started}",
            ),
            files={},
        )


class Validation(BaseModel):
    """``validation.json``: what the weights beside it reach on the validation photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    min_score: float
    metrics: dict[str, dict[str, float]]


def train(settings: TrainSettings, *, data: Path, out: Path, resume: bool = False) -> Validation:
    """Train a model and write a run folder.

    Args:
        settings: Everything that decides the outcome.
        data: A data set's folder. Training uses its split ``train``, or all of it if it is not
            divided; see ``val_split`` for the validation photos.
        out: The run folder; new or empty unless ``resume``.
        resume: Go on from the last checkpoint in ``out``, with the same settings.

    Raises:
        DatasetError: The data cannot be used.
        TrainingError: ``out`` holds another run, or training diverged.
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    train_set, val_set = _load_splits(settings, data)
    torch.manual_seed(settings.seed)
    model = build_model(
        settings.model, classes=len(train_set.categories), preprocess=settings.preprocess
    )
    checkpoint = _find_checkpoint(out, settings, resume=resume)
    if checkpoint is not None:
        record = _read_record(out)
        console.print(f"Resuming {out} from its last checkpoint.")
    else:
        initial = initialise(model, settings.model, settings.init)
        record = _describe(settings, train_set, val_set, initial)
        write_file(out / SETTINGS_FILE, record.model_dump_json(indent=2) + "\n")
        write_image(out / PROBE_FILE, read_image(_fullest(val_set).image_path))
    console.print(
        f"Training {settings.model} ({record.initial_weights}) on {_count(train_set)}; "
        f"validating on {_count(val_set)}."
    )
    with warnings.catch_warnings():
        # Advice for other machines and tasks: more workers, longer epochs, tensor cores.
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*lightning\.pytorch.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # advertisements
        _trainer(settings, out, _Validator(out, record, val_set, console)).fit(
            MaskRcnnModule(model, settings),
            _train_loader(train_set, settings),
            DataLoader(ValidationExamples(val_set, settings.preprocess), collate_fn=collate),
            ckpt_path=checkpoint,
            weights_only=True,
        )
    merge_metrics(out)  # Lightning has logged the last validation only now
    draw_curves(out)
    console.print(f"Done: {out}. Next: maskserve export {out} --out BUNDLE")
    return _read_validation(out)


class _Validator(Callback):
    """Measures the averaged weights, keeps them, and brings the run folder up to date."""

    def __init__(self, out: Path, record: RunRecord, dataset: Dataset, console: Console) -> None:
        self._out = out
        self._record = record
        self._dataset = dataset
        self._console = console

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, MaskRcnnModule)
        model, step = pl_module.model, trainer.global_step
        predictor = _predictor(model, self._record.manifest())
        metrics = evaluate(predictor, self._dataset)
        min_score = calibrate_threshold(self._dataset, metrics.predictions).threshold
        result = Validation(step=step, min_score=min_score, metrics=metrics.summary())
        write_weights(self._out / WEIGHTS_FILE, model.state_dict())
        write_file(self._out / VALIDATION_FILE, result.model_dump_json(indent=2) + "\n")
        gallery = draw_gallery(self._dataset, metrics.predictions, min_score=min_score)
        write_image(self._out / "gallery.jpg", gallery)
        merge_metrics(self._out)
        draw_curves(self._out)
        mask_ap, box_ap = metrics.segm["AP"] or 0.0, metrics.bbox["AP"] or 0.0
        self._console.print(
            f"step {step}: mask AP {mask_ap:.1f}, box AP {box_ap:.1f}, "
            f"best threshold {min_score:.2f}"
        )
        pl_module.log_dict({"val_mask_ap": mask_ap, "val_box_ap": box_ap}, prog_bar=True)


def load_run(run: Path) -> tuple[MaskRCNN, Manifest]:
    """The trained model of a run folder, in evaluation mode, and its description.

    Raises:
        TrainingError: The folder holds no run, or one without a first validation.
        ParameterError: The weights do not belong to the settings.
    """
    record, validation = _read_record(run), _read_validation(run)
    model = build_model(
        record.settings.model,
        classes=len(record.classes),
        preprocess=record.settings.preprocess,
    )
    model.load_state_dict(read_weights(run / WEIGHTS_FILE))
    return model.eval(), record.manifest(validation)


def load_run_predictor(run: Path) -> EnginePredictor:
    """A predictor that runs a run's weights in torch; see :func:`load_run` for errors."""
    return _predictor(*load_run(run))


def _predictor(model: MaskRCNN, manifest: Manifest) -> EnginePredictor:
    network = InferenceNetwork(model, max_instances=manifest.postprocess.max_instances)
    return EnginePredictor(TorchEngine(network), manifest)


def _load_splits(settings: TrainSettings, data: Path) -> tuple[Dataset, Dataset]:
    load = partial(
        load_dataset,
        data,
        format=settings.data_format,
        class_name=settings.class_name,
        class_attribute=settings.class_attribute,
    )
    splits = available_splits(data, format=settings.data_format)
    train_set = load(split="train" if splits else None)
    if settings.val_split is not None:
        return train_set, load(split=settings.val_split)
    return split_dataset(train_set, fraction=settings.val_fraction, seed=settings.seed)


def _find_checkpoint(out: Path, settings: TrainSettings, *, resume: bool) -> Path | None:
    """The checkpoint to go on from; None for a fresh start."""
    if not (out / SETTINGS_FILE).exists():
        if out.is_dir() and any(out.iterdir()):
            raise TrainingError(f"{out} is not empty, and it is not a run folder.")
        return None
    if not resume:
        raise TrainingError(
            f"{out} already holds a run.", hint="Name another folder, or add --resume to go on."
        )
    if _read_record(out).settings_sha256 != settings_sha256(settings):
        raise TrainingError(
            f"The settings differ from those of the run in {out}.",
            hint=f"Go on with the same settings ({out / SETTINGS_FILE}), or name another folder.",
        )
    checkpoint = out / CHECKPOINT_FILE
    return checkpoint if checkpoint.exists() else None


def _describe(
    settings: TrainSettings, train_set: Dataset, val_set: Dataset, initial_weights: str
) -> RunRecord:
    return RunRecord(
        settings=settings,
        settings_sha256=settings_sha256(settings),
        classes=train_set.categories.names,
        category_ids=train_set.categories.category_ids,
        data=_count(train_set),
        train_photos=tuple(sample.image_path.name for sample in train_set.samples),
        val_photos=tuple(sample.image_path.name for sample in val_set.samples),
        initial_weights=initial_weights,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}",
    )


def _fullest(dataset: Dataset) -> Sample:
    """The photo with most instances."""
    return max(dataset.samples, key=lambda sample: len(sample.annotations))


def _count(dataset: Dataset) -> str:
    instances = sum(len(sample.annotations) for sample in dataset.samples)
    return f"{dataset.name}: {_quantity(len(dataset), 'photo')}, {_quantity(instances, 'instance')}"


def _quantity(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _train_loader(dataset: Dataset, settings: TrainSettings) -> DataLoader[Any]:
    return DataLoader(
        TrainingExamples(dataset, settings),
        batch_size=settings.batch_size,
        sampler=StepSampler(settings.steps_per_epoch * settings.batch_size),
        num_workers=settings.workers,
        persistent_workers=False,  # the sampler's epoch must reach the workers
        collate_fn=collate,
    )


def _trainer(settings: TrainSettings, out: Path, validator: Callback) -> lightning.Trainer:
    averaged_steps = max(min(settings.ema_steps, settings.steps // 10), 1)
    starts = len(list((out / "logs").glob("start_*")))
    return lightning.Trainer(
        max_epochs=settings.epochs,
        precision="bf16-mixed" if _use_bf16(settings) else "32-true",
        logger=CSVLogger(out, name="logs", version=f"start_{starts}"),
        log_every_n_steps=min(10, settings.steps_per_epoch),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=1 - 1 / averaged_steps),
            validator,  # after the averaging, which swaps the averaged weights in
            ModelCheckpoint(out, filename="last", enable_version_counter=False),
            _ProgressBar(),
        ],
    )


class _ProgressBar(RichProgressBar):
    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the name of the log's folder
        return metrics


def _use_bf16(settings: TrainSettings) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _read_record(run: Path) -> RunRecord:
    """``settings.json`` of a run folder; TrainingError if it is missing or damaged."""
    return RunRecord.model_validate(_read_json(run, SETTINGS_FILE))


def _read_validation(run: Path) -> Validation:
    """``validation.json`` of a run folder; TrainingError if it is missing or damaged."""
    return Validation.model_validate(_read_json(run, VALIDATION_FILE))


def _read_json(run: Path, name: str) -> Any:
    try:
        return json.loads((run / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(
            f"{run} holds no {name}, so it is not a run folder, or its training never came to "
            "a first validation."
        ) from None
    except ValueError as error:
        raise TrainingError(f"{run / name} is not JSON: {error}.") from None
