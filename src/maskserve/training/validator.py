"""Validation: measures the weights that are kept, and writes what it has shown."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torchvision.models.detection import MaskRCNN

from maskserve.core.manifest import Manifest
from maskserve.core.types import Instances
from maskserve.datasets import Dataset
from maskserve.evaluation import (
    coverage_error,
    judge_photos,
    measure,
    read_predictions,
    write_predictions,
)
from maskserve.evaluation.calibration import calibrate_threshold
from maskserve.evaluation.coco import MIN_SCORE, predict_dataset, predict_photos
from maskserve.evaluation.gallery import draw_gallery
from maskserve.models import InferenceNetwork, TorchEngine
from maskserve.models.checkpoint import WEIGHTS_FILE, write_weights
from maskserve.reporting.history import merge_logs, write_curves
from maskserve.runtime.files import write_file
from maskserve.runtime.image_io import write_image
from maskserve.runtime.predictor import EnginePredictor
from maskserve.training.config import TrainSettings
from maskserve.training.folder import fold_folders
from maskserve.training.module import MaskRcnnModule
from maskserve.training.photos import Photos, load_splits
from maskserve.training.processes import gather, is_first, share
from maskserve.training.record import (
    VALIDATION_FILE,
    FalseFinds,
    RunRecord,
    Validation,
    read_validation,
)
from maskserve.training.report import PREDICTIONS_FILE

__all__ = ["Validator", "torch_predictor"]


class Validator(Callback):
    """Measures the weights to keep, keeps them, and brings the run folder up to date.

    Args:
        out: The run folder.
        record: The run.
        photos: Its photos.
        console: For a line about each validation.
        data: The data set's folder. If other models stand in for this one, what they have found
            in it is measured.
    """

    def __init__(
        self,
        out: Path,
        record: RunRecord,
        photos: Photos,
        console: Console,
        *,
        data: Path,
    ) -> None:
        self._out = out
        self._record = record
        self._dataset = photos.val
        self._backgrounds = photos.backgrounds
        self._data = data
        self._console = console
        earlier = is_first() and (out / VALIDATION_FILE).exists()
        self._seconds_before = read_validation(out).seconds if earlier else 0.0
        self._started = time.monotonic()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,  # noqa: ARG002 -- Lightning's signature
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        pl_module.log("learning_rate", trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        quality = self._validate(trainer, pl_module)
        if quality:
            pl_module.log_dict(quality, prog_bar=True)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self._record.settings.has_stand_ins:
            self._validate(trainer, pl_module)

    def _validate(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, float]:
        """Look at all photos; AP, but for the processes that are not the first."""
        assert isinstance(pl_module, MaskRcnnModule)
        model, step = pl_module.model, trainer.global_step
        predictor = torch_predictor(model, self._record.manifest())
        predictions = []
        if not self._record.settings.has_stand_ins:
            predictions = _predict_samples(predictor, self._dataset)
        elif is_first():
            predictions = _read_stand_ins(self._record.settings, self._data, self._out)
        on_empty = {"val": _predict_photos(predictor, self._backgrounds.val)}
        if step >= self._record.settings.steps:  # the rest of the photos is for the end alone
            on_empty["test"] = _predict_photos(predictor, self._backgrounds.test)
        return self._measure(model, step, predictions, on_empty) if is_first() else {}

    def _measure(
        self,
        model: MaskRCNN,
        step: int,
        predictions: Sequence[Instances],
        on_empty: Mapping[str, Sequence[Instances]],
    ) -> dict[str, float]:
        """Choose the threshold, and write what this validation has shown.

        Args:
            model: With the weights to keep.
            step: After which it was.
            predictions: On the validation photos.
            on_empty: On the photos without any instance, by part; the test part only at the end.

        Returns:
            AP of masks and boxes, by their columns in ``results.csv``.
        """
        metrics = measure(self._dataset, predictions)
        limit = self._record.settings.backgrounds
        calibration = calibrate_threshold(
            self._dataset,
            metrics.predictions,
            backgrounds=on_empty["val"],
            max_false_per_photo=limit.max_false_per_photo if limit else 0.0,
        )
        min_score = calibration.threshold
        photos = judge_photos(self._dataset, metrics.predictions, min_score=min_score)
        false_finds = {}
        if "test" in on_empty:
            for part, found in on_empty.items():
                weak_left_out = [(instances.scores > min_score).sum() for instances in found]
                false_finds[part] = FalseFinds(photos=len(found), instances=int(sum(weak_left_out)))
        result = Validation(
            step=step,
            seconds=self._seconds_before + time.monotonic() - self._started,
            min_score=min_score,
            f1=calibration.f1,
            coverage_error=coverage_error(photos),
            metrics=metrics.summary(),
            false_finds=false_finds,
            fold_mask_ap=self._stand_ins_mask_ap(),
        )
        write_weights(self._out / WEIGHTS_FILE, model.state_dict())
        write_file(self._out / VALIDATION_FILE, result.model_dump_json(indent=2) + "\n")
        write_predictions(self._out / PREDICTIONS_FILE, self._dataset, metrics.predictions)
        gallery = draw_gallery(self._dataset, metrics.predictions, min_score=min_score)
        write_image(self._out / "gallery.jpg", gallery)
        merge_logs(self._out)
        write_curves(self._out)
        mask_ap, box_ap = metrics.segm["AP"] or 0.0, metrics.bbox["AP"] or 0.0
        self._console.print(
            f"step {step}: mask AP {mask_ap:.1f}, box AP {box_ap:.1f}, "
            f"best threshold {min_score:.2f}"
        )
        return {"val_mask_ap": mask_ap, "val_box_ap": box_ap}

    def _stand_ins_mask_ap(self) -> tuple[float, ...]:
        settings = self._record.settings
        if not settings.has_stand_ins:
            return ()
        if settings.refit is not None:
            folders = [Path(settings.refit)]
        else:
            folders = [folder for _, folder in fold_folders(settings, self._out)]
        return tuple(read_validation(folder).metrics["segm"].get("AP", 0.0) for folder in folders)


def _read_stand_ins(settings: TrainSettings, data: Path, out: Path) -> list[Instances]:
    """What was found on each photo to measure by the model that has not learned from it."""
    if settings.refit is not None:
        _, held_out = load_splits(settings, data)
        return read_predictions(Path(settings.refit, PREDICTIONS_FILE), held_out)
    found: dict[int, Instances] = {}
    for fold, folder in fold_folders(settings, out):
        _, val_set = load_splits(settings.model_copy(update={"fold": fold}), data)
        predictions = read_predictions(folder / PREDICTIONS_FILE, val_set)
        found |= {s.image_id: p for s, p in zip(val_set.samples, predictions, strict=True)}
    dataset, _ = load_splits(settings, data)
    return [found[sample.image_id] for sample in dataset.samples]


def torch_predictor(model: MaskRCNN, manifest: Manifest) -> EnginePredictor:
    """A predictor that runs a model in torch, as its manifest describes it."""
    network = InferenceNetwork(model, max_instances=manifest.postprocess.max_instances)
    return EnginePredictor(TorchEngine(network), manifest)


def _predict_samples(predictor: EnginePredictor, dataset: Dataset) -> list[Instances]:
    """Instances by photo; every process looks at some."""
    own = tuple(dataset.samples[number] for number in share(len(dataset)))
    found = predict_dataset(predictor, replace(dataset, samples=own), min_score=MIN_SCORE)
    return gather(found, len(dataset))


def _predict_photos(predictor: EnginePredictor, photos: Sequence[Path]) -> list[Instances]:
    """Instances by photo; every process looks at some."""
    own = [photos[number] for number in share(len(photos))]
    return gather(predict_photos(predictor, own, min_score=MIN_SCORE), len(photos))
