"""Settings of a training run: defaults < TOML file < flags; unknown keys are refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from maskserve.core.categories import nearest_name
from maskserve.core.errors import SettingsError
from maskserve.core.manifest import Preprocess
from maskserve.models.mask_rcnn import LightDesign
from maskserve.models.resnet import ResNetDesign
from maskserve.models.start import Demands
from maskserve.runtime.files import read_toml

__all__ = [
    "AugmentSettings",
    "BackgroundSettings",
    "ExtraSettings",
    "TrainSettings",
    "adopt_refit",
    "adopt_start",
    "adopt_unset",
    "read_settings",
    "settings_sha256",
]

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _design_kind(value: object) -> str:
    has_depth = isinstance(value, dict) and "depth" in value
    return "resnet" if has_depth or isinstance(value, ResNetDesign) else "light"


Design = Annotated[
    Annotated[LightDesign, Tag("light")] | Annotated[ResNetDesign, Tag("resnet")],
    Discriminator(_design_kind),
]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_PIXELS = ("channel_order", "mean", "std")
"""Of the preprocessing, what weights depend on."""
_FREE_IN_REFIT = frozenset({"refit", "name", "loggers", "workers"})
"""What may differ from the run that is trained once more."""


class AugmentSettings(_Settings):
    """How a training photo is changed before the network sees it."""

    crop_px: Annotated[int, Field(ge=64, multiple_of=32)] = 640
    """Photos are cropped, or filled up with grey, to squares of this side."""
    min_scale: Positive = 0.4
    max_scale: Positive = 1.6
    """Large-scale jitter: times the scale at which the photo would be served, log-uniform."""
    min_shown: Share = 0.0
    """Views are drawn anew, up to seven times, while they cut an instance down to less than this
    share of its box."""
    mosaic: Share = 0.0
    """How often an example is made of four views at half the scale (Bochkovskiy, 2004.10934)."""
    flip: Share = 0.5
    quarter_turns: bool = False
    """Turn views by a random number of right angles: for photos without up and down, such as
    through a microscope or from the air."""
    turn_deg: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Turn views by up to so much either way."""
    colour: Share = 0.4
    """Strength of brightness, contrast and saturation jitter; hue gets an eighth of it."""
    paste: Share = 0.5
    """How often instances of another training photo are pasted in (Ghiasi et al., 2012.07177)."""
    paste_hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """How far pasted instances may turn round the colour circle; for things of any colour, 0.5."""


class BackgroundSettings(_Settings):
    """Photos that show nothing of what is looked for: to paste onto, and to learn silence from.

    By their names they are divided into three parts: for training, for choosing the threshold,
    and for counting false finds at the end. What is chosen by one part is not measured on it.
    """

    folder: str
    share: Share = 0.3
    """How often an example shows one of them instead of a training photo."""
    val_fraction: Share = 0.2
    test_fraction: Share = 0.2
    max_false_per_photo: Positive = 0.1
    """The default threshold is raised until there are no more false finds on the second part."""


class ExtraSettings(_Settings):
    """More annotated photos with the same classes, such as rendered ones; never validated on."""

    folder: str
    split: str | None = None
    share: Share = 0.2
    """How often an example shows one of them instead of a training photo."""


class TrainSettings(_Settings):
    """Everything that decides the outcome of a run, but for the data."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")] = "model"
    """Name of the model in manifests and in the API."""
    model: Literal["mobilenet_v2", "resnet50", "resnet101"] = "mobilenet_v2"
    init: str = "auto"
    """Initial weights: imagenet, coco (resnet50), none, a shipped model or a bundle, a file,
    detectron2://NAME for one of Detectron2's zoo, or auto: the most that torchvision has for the
    model, coco for resnet50 and imagenet for the others. See :func:`adopt_start`."""
    seed: int = 0
    """Of everything random: first weights of what has none, order and augmentation of photos, and,
    without ``split_seed``, which photos are held out."""
    split_seed: int | None = None
    """Draws the photos that are held out, so that another ``seed`` holds the same ones out: to
    learn on with new examples, or to see the spread between trainings alone. None: ``seed``."""
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
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Cross-validate: train so many models, each without a part of the photos that it is measured
    on, and then the model itself on all of them."""
    fold: Count | None = None
    """Train one of these models alone, from 1."""
    refit: str | None = None
    """A finished run that is to be trained once more in the same way, but also on the photos that
    it held out. See :func:`adopt_refit`."""
    precision: Literal["auto", "bf16", "f32"] = "auto"
    """auto: bfloat16 autocast where the processor computes it natively."""
    batch_norm: Literal["auto", "fixed", "learned"] = "auto"
    """Statistics of a ResNet's batch norms: as loaded, or learned from the batches. auto: learned
    where ``init`` is none. The light model's are always fixed."""
    learning_rate: Positive = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 150
    clip_norm: Positive = 5.0
    ema_steps: Count = 300
    """Weights are averaged exponentially over about so many steps, a tenth of the run at most."""
    initial_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the initial weights in those that are measured and kept, for a training that goes
    on from an earlier one. See :class:`maskserve.training.averaging.KeptWeights`."""
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where to log besides ``results.csv``, which is always written."""
    max_instances: Count = 100
    """The model gives no more of them for a photo, those with the best scores."""
    design: Design | None = None
    """Sizes of the model's parts; a table with ``depth`` is a ResNet's."""
    preprocess: Preprocess = Preprocess()
    augment: AugmentSettings = AugmentSettings()
    backgrounds: BackgroundSettings | None = None
    extra: ExtraSettings | None = None

    @model_validator(mode="after")
    def _check_folds(self) -> TrainSettings:
        if self.folds is not None and self.val_split is not None:
            raise ValueError("folds divide the training photos; they go without val_split")
        if self.fold is not None and self.fold > (self.folds or 0):
            raise ValueError(f"there is no fold {self.fold}; folds is {self.folds}")
        return self

    @property
    def holds_out_by(self) -> int:
        """The seed that draws which photos are held out."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def is_cross_validated(self) -> bool:
        """Whether it learns from all photos, and its folds are measured in its place."""
        return self.folds is not None and self.fold is None

    @property
    def has_stand_ins(self) -> bool:
        """Whether it learns from all photos, and other models are measured in its place."""
        return self.is_cross_validated or self.refit is not None

    @property
    def learns_statistics(self) -> bool:
        """Whether batch norms of a ResNet learn their statistics."""
        return self.batch_norm == "learned" or (self.batch_norm == "auto" and self.init == "none")

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


def adopt_start(settings: TrainSettings, demands: Demands) -> TrainSettings:
    """Settings for weights that need a certain model and certain pixels.

    Model, design, order of channels, mean and std become what the weights were trained with. The
    size of photos stays a free choice.

    Raises:
        SettingsError: One of them was set to something else.
    """
    wanted = {"model": demands.model, "design": demands.design}
    pixels = {key: getattr(demands.preprocess, key) for key in _PIXELS}
    for group, table, values in (
        ("", settings, wanted),
        ("preprocess.", settings.preprocess, pixels),
    ):
        for key in table.model_fields_set & values.keys():
            found = getattr(table, key)
            if found not in (None, values[key]):
                raise SettingsError(
                    f"{group}{key} is set to {_short(found)}, but the initial weights were trained "
                    f"with {_short(values[key])} ({demands.known_from}).",
                    hint=f"Leave {group}{key} out: it follows from --init {settings.init}.",
                )
    preprocess = settings.preprocess.model_copy(update=pixels)
    return settings.model_copy(update=wanted | {"preprocess": preprocess})


def adopt_unset(settings: TrainSettings, earlier: TrainSettings | Demands) -> TrainSettings:
    """Settings with the model, design and preprocessing of earlier weights where none are set."""
    model = {"model", "design"} - settings.model_fields_set
    pixels = Preprocess.model_fields.keys() - settings.preprocess.model_fields_set
    preprocess = settings.preprocess.model_copy(
        update={key: getattr(earlier.preprocess, key) for key in pixels}
    )
    return settings.model_copy(
        update={key: getattr(earlier, key) for key in model} | {"preprocess": preprocess}
    )


def adopt_refit(settings: TrainSettings, earlier: TrainSettings) -> TrainSettings:
    """The settings of a run, for training it once more on all photos.

    Args:
        settings: ``refit`` names the run. Name, loggers and workers may be others.
        earlier: The run's.

    Raises:
        SettingsError: The run held out none of its photos, or something else is set than it had.
    """
    if earlier.has_stand_ins or earlier.val_split is not None:
        raise SettingsError(
            f"{settings.refit} has learned from all of its photos: there is nothing to add.",
            hint="A refit adds the photos that val_fraction held out of a run.",
        )
    for key in sorted(settings.model_fields_set - _FREE_IN_REFIT):
        if getattr(settings, key) != getattr(earlier, key):
            raise SettingsError(
                f"{key} is not what {settings.refit} was trained with, whose figures would not "
                "describe this training.",
                hint=f"Leave {key} out: a refit takes over all settings.",
            )
    free = {key: getattr(settings, key) for key in settings.model_fields_set & _FREE_IN_REFIT}
    return earlier.model_copy(update=free)


def _short(value: object) -> str:
    return "another design" if is_dataclass(value) else str(value)


def settings_sha256(settings: TrainSettings) -> str:
    """Hash of the resolved settings, the same for equal ones on every machine; without loggers."""
    text = json.dumps(settings.model_dump(mode="json", exclude={"loggers"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _explain(error: ValidationError, config: Path | None) -> str:
    first = error.errors()[0]
    # The kind of a design is not part of the file.
    loc = [part for part in first["loc"] if part not in ("light", "resnet")]
    key = ".".join(str(part) for part in loc)
    where = f" in {config}" if config else ""
    if not key:  # settings that do not go together
        return f"Settings{where} do not fit: {first['ctx']['error']}."
    if first["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key}{where}: {first['msg']} (found {first['input']!r})."
    tables: dict[str, Any] = {
        "design": ResNetDesign if "resnet" in first["loc"] else LightDesign,
        "preprocess": Preprocess,
        "augment": AugmentSettings,
        "backgrounds": BackgroundSettings,
        "extra": ExtraSettings,
    }
    table = tables.get(str(first["loc"][0]), TrainSettings)
    known = [field.name for field in fields(table)] if is_dataclass(table) else table.model_fields
    nearest = nearest_name(str(first["loc"][-1]), known)
    guess = f"Did you mean “{nearest}”?" if nearest else f"Known: {', '.join(known)}."
    return f"There is no setting “{key}”{where}. {guess}"
