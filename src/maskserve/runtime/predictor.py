"""The predictor: preprocessing, engine and postprocessing in a row."""

from __future__ import annotations

import time
from dataclasses import dataclass

from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.engine import Engine
from maskserve.runtime.postprocess import to_instances
from maskserve.runtime.preprocess import to_graph_input

__all__ = ["EnginePredictor", "StageTimes"]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds spent in the stages of one prediction."""

    preprocess_ms: float
    network_ms: float
    paste_ms: float

    @property
    def infer_ms(self) -> float:
        """From the photo to what the network found in it."""
        return self.preprocess_ms + self.network_ms


class EnginePredictor:
    """A :class:`maskserve.core.Predictor` on top of any engine.

    Args:
        engine: Runs the network.
        manifest: Describes the network's input and output.
    """

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        self._engine = engine
        self._manifest = manifest

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def predict(self, image: Image, *, min_score: float | None = None) -> Instances:
        """See :meth:`maskserve.core.Predictor.predict`."""
        return self.predict_timed(image, min_score=min_score)[0]

    def predict_timed(
        self, image: Image, *, min_score: float | None = None
    ) -> tuple[Instances, StageTimes]:
        """As :meth:`predict`, with the time that it took."""
        if min_score is None:
            min_score = self._manifest.postprocess.min_score
        start = time.perf_counter()
        network_input = to_graph_input(image, self._manifest.preprocess)
        preprocessed = time.perf_counter()
        raw = self._engine.infer(network_input, min_score=min_score)
        inferred = time.perf_counter()
        instances = to_instances(
            raw,
            self._manifest,
            resized=network_input.shape[:2],
            image_size=image.shape[:2],
        )
        pasted = time.perf_counter()
        return instances, StageTimes(
            preprocess_ms=(preprocessed - start) * 1e3,
            network_ms=(inferred - preprocessed) * 1e3,
            paste_ms=(pasted - inferred) * 1e3,
        )
