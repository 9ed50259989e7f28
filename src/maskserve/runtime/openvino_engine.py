"""Running a graph with OpenVINO. The only module that imports it and knows how it fails."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import numpy as np

from maskserve.core.errors import BundleCorruptError, EngineError
from maskserve.core.manifest import GRAPH_INPUTS, GRAPH_OUTPUTS
from maskserve.core.predictor import Image
from maskserve.runtime.engine import RawDetections

__all__ = ["OpenVinoEngine", "Precision"]

Precision = Literal["auto", "f32"]
"""``auto`` lets OpenVINO choose, which is bfloat16 on CPUs that have it and twice as fast there;
``f32`` gives the same numbers on every CPU."""


def _import_openvino() -> ModuleType:
    """Import OpenVINO so that it cannot phone home.

    ``import openvino`` runs its conversion tools, which report the import to Google Analytics
    and leave an id in the home folder unless the user has opted out. They do without the package
    ``openvino_telemetry`` where it is not installed, and None in ``sys.modules`` means that.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


class OpenVinoEngine:
    """A :class:`maskserve.runtime.engine.Engine` on the CPU, safe to call from many threads.

    Args:
        model: Content of ``model.onnx``.
        precision: Of the arithmetic.
        threads: How many CPU threads one inference uses; all cores by default.

    Raises:
        BundleCorruptError: It is not a graph, or not one with the inputs and outputs that
            ``core.manifest`` describes.
    """

    def __init__(
        self, model: bytes, *, precision: Precision = "auto", threads: int | None = None
    ) -> None:
        openvino = _import_openvino()
        config: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
        if precision == "f32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        try:
            graph = core.read_model(model)
            names = {port.any_name for port in (*graph.inputs, *graph.outputs)}
            missing = sorted({*GRAPH_INPUTS, *GRAPH_OUTPUTS} - names)
            if missing:
                raise BundleCorruptError(f"The graph lacks {', '.join(missing)}.")
            self._model = core.compile_model(graph, "CPU", config)
        except RuntimeError as error:
            raise BundleCorruptError(f"OpenVINO cannot use the graph: {_brief(error)}") from error
        # A request runs one inference at a time, in buffers of its own. There are as many of
        # them as inferences ever ran at once.
        self._idle_requests: list[Any] = []

    def infer(self, image: Image, *, min_score: float) -> RawDetections:
        """See :meth:`maskserve.runtime.engine.Engine.infer`.

        Raises:
            EngineError: OpenVINO failed, for instance for want of memory.
        """
        inputs = {"image": image[None], "min_score": np.array([min_score], dtype=np.float32)}
        try:
            try:
                request = self._idle_requests.pop()  # atomic, as append is
            except IndexError:
                request = self._model.create_infer_request()
            outputs = request.infer(inputs)  # copies: they outlive the next inference
        except RuntimeError as error:
            height, width = image.shape[:2]
            raise EngineError(
                f"OpenVINO failed on an input of {width} x {height} pixels: {_brief(error)}"
            ) from error
        self._idle_requests.append(request)
        boxes, scores, classes, masks = (outputs[name] for name in GRAPH_OUTPUTS)
        return RawDetections(boxes, scores, classes.astype(np.int64, copy=False), masks)


def _brief(error: RuntimeError) -> str:
    """OpenVINO's message without the lines that name its own source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from"))
