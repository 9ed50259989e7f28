"""A replica: one model in one process, for photos that the front sends."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray

from maskserve.core.errors import MaskserveError, SettingsError
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.allocator import return_large_blocks
from maskserve.runtime.model_cache import user_cache
from maskserve.runtime.predictor import EnginePredictor, StageTimes
from maskserve.runtime.registry import ModelRegistry

__all__ = ["ModelReplica", "Prediction"]

_log = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a replica found, and by which model.

    Attributes:
        manifest: None if it is the one that the front knows already.
    """

    instances: Instances
    times: StageTimes
    manifest: Manifest | None


class ModelReplica:
    """Holds a model; Serve makes as many as the queue asks for.

    The network has as many threads as Ray gives CPUs to the replica.
    """

    def __init__(self) -> None:
        return_large_blocks()
        self._bundle: str | None = None
        self._predictor: EnginePredictor | None = None

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load a bundle; the old one answers until the new one has, and for good if it cannot.

        Raises:
            SettingsError: The config does not name a bundle, and nothing else.
            MaskserveError: The bundle cannot be used, and there was none before.
        """
        if set(user_config) != {"bundle"}:
            raise SettingsError(f"user_config must be {{bundle: PATH}}, not {user_config}.")
        bundle = user_config["bundle"]
        if bundle == self._bundle:
            return
        try:
            predictor = _load(bundle)
            if self._predictor and predictor.manifest.name != self._predictor.manifest.name:
                raise SettingsError(
                    f"{bundle} holds another model, “{predictor.manifest.name}”.",
                    hint="Change args.models to serve another one.",
                )
        except MaskserveError as error:
            if self._predictor is None:
                raise
            _log.error("the bundle %s is refused, %s stays: %s", bundle, self._bundle, error)
            return
        self._bundle, self._predictor = bundle, predictor
        _log.info("model %s is version %s now", predictor.manifest.name, predictor.manifest.version)

    def manifest(self) -> Manifest:
        """The model's description."""
        return self._loaded.manifest

    def predict(self, image: Image, *, min_score: float | None, known: Manifest) -> Prediction:
        """Find instances in a decoded photo.

        Args:
            image: Upright, uint8 (H, W, 3) RGB.
            min_score: By default the model's own threshold.
            known: The manifest that the front has.

        Raises:
            MaskserveError: As ``runtime.EnginePredictor.predict_timed`` does.
        """
        predictor = self._loaded
        instances, times = predictor.predict_timed(image, min_score=min_score)
        found = predictor.manifest
        return Prediction(instances, times, None if found == known else found)

    @property
    def _loaded(self) -> EnginePredictor:
        assert self._predictor is not None, "Serve calls reconfigure before anything else"
        return self._predictor


def _load(bundle: str) -> EnginePredictor:
    """A predictor that has answered once."""
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    registry = ModelRegistry([bundle], threads=max(ceil(cpus), 1), cache=user_cache())
    registry.load()
    return registry.get()
