"""What a run folder says of its run: ``settings.json`` and ``validation.json``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from maskserve.core.errors import TrainingError
from maskserve.core.manifest import Manifest, Postprocess, Provenance
from maskserve.models.resnet import ResNetDesign
from maskserve.reporting.run import PhotoCounts
from maskserve.reporting.wording import quantity
from maskserve.training.config import TrainSettings

__all__ = [
    "SETTINGS_FILE",
    "VALIDATION_FILE",
    "FalseFinds",
    "RunRecord",
    "Validation",
    "read_record",
    "read_validation",
]

SETTINGS_FILE = "settings.json"
VALIDATION_FILE = "validation.json"

_Model = TypeVar("_Model", bound=BaseModel)


class RunRecord(BaseModel):
    """``settings.json``: all that is needed to understand a run or to do it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    settings_sha256: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    data: str
    """What the network learns from, in words: annotated photos, and how many."""
    data_folder: str
    """Where the photos were, so that the report can show some; not part of the manifest."""
    train_photos: tuple[str, ...]
    train_counts: PhotoCounts
    val_photos: tuple[str, ...]
    val_counts: PhotoCounts
    backgrounds: int
    """Photos that show nothing, of those that the network learns from."""
    initial_weights: str
    started: str
    machine: str

    def manifest(self, validation: Validation | None = None) -> Manifest:
        """The run's model as the predictor and the bundle describe it; without files."""
        settings = self.settings
        postprocess = Postprocess(max_instances=settings.max_instances)
        metrics = {}
        if validation is not None:
            postprocess = postprocess.model_copy(update={"min_score": validation.min_score})
            metrics = {self._measured_on(): validation.metrics}
        return Manifest(
            name=settings.name,
            version=self.started[:10].replace("-", "."),
            licence="unknown",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=_backbone_of(settings),
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

    def _measured_on(self) -> str:
        photos = len(self.val_photos)
        if self.settings.is_cross_validated:
            return f"{quantity(photos, 'photo')}, cross-validated in {self.settings.folds} folds"
        measured = quantity(photos, "validation photo")
        return f"{measured}, before the refit" if self.settings.refit else measured


def _backbone_of(settings: TrainSettings) -> str:
    design = settings.design
    return design.name if isinstance(design, ResNetDesign) else settings.model


class FalseFinds(BaseModel):
    """How many instances were found in photos that show none, at the default threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    instances: int


class Validation(BaseModel):
    """``validation.json``: what the weights beside it reach on the validation photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    seconds: float
    """Of work until then, over all starts."""
    min_score: float
    f1: float
    """At this threshold, 0..1; masks of IoU 0.5 and more are right."""
    coverage_error: float
    """Mean error of the covered part of a photo, in percentage points."""
    metrics: dict[str, dict[str, float]]
    false_finds: dict[str, FalseFinds]
    """On the backgrounds that chose the threshold (``val``), and on those that nothing was
    chosen by (``test``); filled at the end of the run if there are backgrounds."""
    fold_mask_ap: tuple[float, ...] = ()
    """Of the models that are measured in its place, such as folds: mask AP of each, on the photos
    that it has not learned from."""


def read_record(run: Path) -> RunRecord:
    """``settings.json`` of a run folder.

    Raises:
        TrainingError: It is missing or damaged, or from another version of maskserve.
    """
    return _read(run, SETTINGS_FILE, RunRecord)


def read_validation(run: Path) -> Validation:
    """``validation.json`` of a run folder.

    Raises:
        TrainingError: It is missing or damaged, or from another version of maskserve.
    """
    return _read(run, VALIDATION_FILE, Validation)


def _read(run: Path, name: str, model: type[_Model]) -> _Model:
    try:
        content: Any = json.loads((run / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(
            f"{run} holds no {name}, so it is not a run folder, or its training never came to "
            "a first validation."
        ) from None
    except ValueError as error:
        raise TrainingError(f"{run / name} is not JSON: {error}.") from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainingError(
            f"{run / name} does not suit this version of maskserve: {key}: {first['msg']}.",
            hint="Use the version that trained it, or train again.",
        ) from None
