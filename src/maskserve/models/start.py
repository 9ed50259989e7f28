"""What a training may start from, and what that asks of the model that takes it.

Weights only mean something in the network that they were trained in, fed with the pixels that they
were trained on. With a checkpoint of Detectron2 both are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from maskserve.core.errors import ParameterError
from maskserve.core.manifest import Preprocess
from maskserve.datasets.download import OnProgress
from maskserve.models.bundle_weights import read_bundle_weights
from maskserve.models.checkpoint import WEIGHTS_FILE, read_weights
from maskserve.models.detectron2.config import read_config
from maskserve.models.detectron2.weights import (
    add_levels,
    is_detectron2_state,
    translate_detectron2_state,
)
from maskserve.models.detectron2_zoo import (
    base_design,
    base_preprocess,
    fetch_zoo_model,
    find_zoo_model,
)
from maskserve.models.mask_rcnn import LightDesign
from maskserve.models.resnet import ResNetDesign
from maskserve.runtime.bundle import find_bundle, read_bundle, shipped_bundles

__all__ = ["Demands", "Start", "read_start"]

_CONFIG_NAME = "config.yaml"  # as Detectron2's trainer calls it
_LAST_BLOCK = re.compile(r"backbone\.bottom_up\.res4\.(\d+)\.conv1\.weight")
_DEPTHS = {5: 50, 22: 101, 35: 152}  # by the last block of res4


@dataclass(frozen=True, slots=True)
class Demands:
    """What weights ask of the model that they are loaded into.

    Attributes:
        model: Its name.
        design: Its sizes; None for the model's defaults.
        preprocess: Of which order of channels, mean and std count.
        known_from: Where this is known from, in words.
    """

    model: str
    design: LightDesign | ResNetDesign | None
    preprocess: Preprocess
    known_from: str


@dataclass(frozen=True, slots=True)
class Start:
    """Weights to start from.

    Attributes:
        source: As it was asked for.
        state: Under this package's names.
        words: What they are, for the log and the model card.
        demands: None for plain files of weights, which ask for nothing.
        is_bundle: Whether they are a bundle's. Its network may be changed, and those of its norms
            that learn their statistics have none.
    """

    source: str
    state: Mapping[str, Tensor]
    words: str
    demands: Demands | None = None
    is_bundle: bool = False


def read_start(start: str, *, on_progress: OnProgress | None = None) -> Start:
    """Read weights to start from.

    Args:
        start: ``detectron2://NAME`` for a model of Detectron2's zoo; a checkpoint of Detectron2,
            whose ``config.yaml`` is used if it lies beside it; a ``.safetensors`` or
            weights-only ``.pth`` file; or a bundle of a light model, by its path or, if it is
            shipped, by its name.
        on_progress: Is told of a download.

    Raises:
        ParameterError: There is no such file or model, or it holds no weights to start from.
        UnknownModelError: There is no shipped model or bundle of that name.
        BundleError: The bundle is incomplete or damaged.
        SettingsError: The config beside a checkpoint is of another kind of model.
        DownloadError: The zoo's file cannot be downloaded.
    """
    published = find_zoo_model(start)
    if published is not None:
        state = read_weights(fetch_zoo_model(published, on_progress=on_progress))
        demands = _demands(published.design, published.preprocess, "its config in the model zoo")
        return Start(start, translate_detectron2_state(state), start, demands)
    path = Path(start)
    if _may_be_bundle(path) or start in shipped_bundles():
        return _read_bundle(start)
    state = read_weights(path)
    if not is_detectron2_state(state):
        return Start(start, state, path.name)
    return _read_detectron2(start, state)


def _may_be_bundle(path: Path) -> bool:
    """Whether it is one, or a name of one that is not there."""
    return path.is_dir() or path.suffix == ".zip" or not (path.suffix or path.exists())


def _read_bundle(start: str) -> Start:
    weights = Path(start, WEIGHTS_FILE)
    if weights.is_file():
        raise ParameterError(f"{start} is a run, not a bundle.", hint=f"Start from {weights}.")
    bundle = read_bundle(find_bundle(start))
    manifest = bundle.manifest
    settings = manifest.provenance.settings
    try:
        design = TypeAdapter(LightDesign).validate_python(settings.get("design"))
    except ValidationError:
        raise ParameterError(
            f"A training cannot start from {start}, a {manifest.backbone}: of bundles only those "
            "of light models (mobilenet_v2) that were trained by this package hold what it needs.",
            hint="Start from the file of weights that the bundle was made from.",
        ) from None
    demands = Demands(manifest.backbone, design, manifest.preprocess, "its manifest.json")
    words = f"bundle {manifest.name}, trained on {manifest.provenance.data}"
    return Start(start, read_bundle_weights(bundle, design), words, demands, is_bundle=True)


def _read_detectron2(start: str, state: dict[str, Tensor]) -> Start:
    path = Path(start)
    config_path = path.with_name(_CONFIG_NAME)
    if config_path.is_file():
        config = read_config(config_path, masks=False)
        state = add_levels(state) if config.averaged else state
        demands = _demands(config.design, config.preprocess, str(config_path))
    else:
        demands = _demands(
            base_design(_depth_of(state)),
            base_preprocess(),
            f"Detectron2's defaults, since there is no {_CONFIG_NAME} beside it",
        )
    words = f"Detectron2's {path.name}"
    return Start(start, translate_detectron2_state(state), words, demands)


def _depth_of(state: Mapping[str, Tensor]) -> int:
    blocks = [int(found[1]) for found in map(_LAST_BLOCK.fullmatch, state) if found]
    return _DEPTHS.get(max(blocks, default=5), 50)


def _demands(design: ResNetDesign, preprocess: Preprocess, known_from: str) -> Demands:
    name = "resnet50" if design.depth == 50 else "resnet101"
    return Demands(name, design, preprocess, known_from)
