"""Settings of a training run: defaults < TOML file < flags; unknown keys are refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskserve.core.categories import nearest_name
from maskserve.core.errors import SettingsError
from maskserve.core.manifest import Preprocess
from maskserve.runtime.files import read_toml

__all__ = ["AugmentSettings", "TrainSettings", "read_settings", "settings_sha256"]

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AugmentSettings(_Settings):
    """How a training photo is changed before the network sees it."""

    crop_px: Annotated[int, Field(ge=64, multiple_of=32)] = 640
    """Photos are cropped, or filled up with grey, to squares of this side."""
    min_scale: Positive = 0.4
    max_scale: Positive = 1.6
    """Large-scale jitter: times the scale at which the photo would be served, log-uniform."""
    flip: Share = 0.5
    colour: Share = 0.4
    """Strength of brightness, contrast and saturation jitter; hue gets an eighth of it."""
    paste: Share = 0.5
    """How often instances of another training photo are pasted in (Ghiasi et al., 2012.07177)."""


class TrainSettings(_Settings):
    """Everything that decides the outcome of a run, but for the data."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")] = "model"
    """Name of the model in manifests and in the API."""
    model: Literal["mobilenet_v2", "resnet50", "resnet101"] = "mobilenet_v2"
    init: str = "auto"
    """Initial weights: imagenet, coco (resnet50), none, a file, or auto: the most that
    torchvision has for the model, coco for resnet50 and imagenet for the others."""
    seed: int = 0
    steps: Count = 2000
    validate_every: Count = 250
    """Steps between validations, evened out so that the last step is followed by one; a
    checkpoint to resume from is written at each."""
    batch_size: Count = 4
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that load and augment photos."""
    class_name: str | None = None
    """What to call the only class of VIA files that name none; by default as the folder."""
    class_attribute: str | None = None
    """The region attribute that holds the class, in VIA files with several."""
    data_format: str | None = None
    """via or coco. None: recognised by the files."""
    val_split: str | None = None
    """Split of the data to validate on. None: hold a part of the training photos out."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the training photos that is held out."""
    precision: Literal["auto", "bf16", "f32"] = "auto"
    """auto: bfloat16 autocast where the processor computes it natively."""
    learning_rate: Positive = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 150
    clip_norm: Positive = 5.0
    ema_steps: Count = 300
    """Weights are averaged exponentially over about so many steps, a tenth of the run at most."""
    preprocess: Preprocess = Preprocess()
    augment: AugmentSettings = AugmentSettings()

    @property
    def epochs(self) -> int:
        """Number of validations; an epoch here is what lies between two of them."""
        return max(round(self.steps / self.validate_every), 1)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.steps / self.epochs)


def read_settings(config: Path | None, overrides: Mapping[str, Any]) -> TrainSettings:
    """Settings from a TOML file, if any, with ``overrides`` (flags) on top.

    Raises:
        SettingsError: The file is missing or no TOML, or a key or value is not valid; names the
            nearest known key.
    """
    values = read_toml(config) if config is not None else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, config)) from None


def settings_sha256(settings: TrainSettings) -> str:
    """Hash of the resolved settings, the same for equal settings on every machine."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _explain(error: ValidationError, config: Path | None) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = f" in {config}" if config else ""
    if first["type"] != "extra_forbidden":
        return f"{key}{where}: {first['msg']} (found {first['input']!r})."
    tables: dict[str, type[BaseModel]] = {"preprocess": Preprocess, "augment": AugmentSettings}
    known = tables.get(str(first["loc"][0]), TrainSettings).model_fields
    nearest = nearest_name(str(first["loc"][-1]), known)
    guess = f"Did you mean “{nearest}”?" if nearest else f"Known: {', '.join(known)}."
    return f"There is no setting “{key}”{where}. {guess}"
