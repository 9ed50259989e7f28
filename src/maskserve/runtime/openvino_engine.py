"""Running a graph with OpenVINO. The only module that imports it and knows how it fails."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any, Literal

import numpy as np

from maskserve.core.errors import BundleCorruptError, EngineError
from maskserve.core.manifest import GRAPH_INPUTS, GRAPH_OUTPUTS
from maskserve.core.predictor import Image
from maskserve.runtime.engine import RawDetections
from maskserve.runtime.model_cache import ModelCache

__all__ = [
    "GraphCost",
    "OpenVinoEngine",
    "Precision",
    "import_openvino",
    "measure_cost",
    "measure_peak",
]

Precision = Literal["auto", "f32"]
"""``auto`` lets OpenVINO choose, which is bfloat16 on CPUs that have it and twice as fast there;
``f32`` gives the same numbers on every CPU."""


def import_openvino() -> ModuleType:
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
        cache: Where to keep the compiled model for the next time.

    Raises:
        BundleCorruptError: It is not a graph, or not one with the inputs and outputs that
            ``core.manifest`` describes.
    """

    def __init__(
        self,
        model: bytes,
        *,
        precision: Precision = "auto",
        threads: int | None = None,
        cache: ModelCache | None = None,
    ) -> None:
        try:
            self._model = _compile(model, _config(precision, threads), cache)
        except RuntimeError as error:
            raise BundleCorruptError(f"OpenVINO cannot use the graph: {_brief(error)}") from error
        # A request runs one inference at a time, in buffers of its own. There are as many of
        # them as inferences ever ran at once.
        self._idle_requests: list[Any] = []

    @property
    def arithmetic(self) -> str:
        """The type of number that it computes with, such as ``bf16`` or ``f32``."""
        return str(self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    @property
    def threads(self) -> int:
        """How many CPU threads one inference uses."""
        return int(self._model.get_property("INFERENCE_NUM_THREADS"))

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


def _config(precision: Precision, threads: int | None = None) -> dict[str, str | int]:
    """OpenVINO's properties: all cores work on one photo, unless there is a number of threads."""
    config: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
    if precision == "f32":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


def _compile(model: bytes, config: dict[str, str | int], cache: ModelCache | None) -> Any:
    """Compile a graph, or take what an equal version of OpenVINO made of it on an equal CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    depends = (
        openvino.__version__,
        str(core.get_property("CPU", "FULL_DEVICE_NAME")),
        str(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        str(sorted(config.items())),
        "boxes in float32",  # how it is compiled here; see _keep_boxes_exact
    )
    compiled = cache.get(model, *depends) if cache else None
    if compiled is not None:
        with suppress(RuntimeError):
            return core.import_model(compiled, "CPU", config)
    graph = core.read_model(model)
    names = {port.any_name for port in (*graph.inputs, *graph.outputs)}
    missing = sorted({*GRAPH_INPUTS, *GRAPH_OUTPUTS} - names)
    if missing:
        raise BundleCorruptError(f"The graph lacks {', '.join(missing)}.")
    _keep_boxes_exact(graph)
    network = core.compile_model(graph, "CPU", config)
    if cache is not None:
        cache.put(network.export_model().getvalue(), model, *depends)
    return network


def _keep_boxes_exact(graph: Any) -> None:
    """Keep coordinates of boxes in float32 where OpenVINO would round them to bfloat16.

    With 8 bits, what lies beyond 512 pixels is off by up to 2. OpenVINO spares only what leads to
    an output without a convolution or matrix product in between, and boxes on their way to
    RoIAlign do not. As outputs, which nobody reads, they do.
    """
    operations = import_module("openvino.opset13")
    boxes = [
        node.input_value(1)
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "ROIAlign"
    ]
    graph.add_results([operations.result(port) for port in boxes])


@dataclass(frozen=True, slots=True)
class GraphCost:
    """How large a network is and how much it computes, whatever machine it runs on.

    Attributes:
        parameters: Numbers in its weights.
        macs: Multiply-accumulate operations of convolutions and matrix products for one photo.
            “FLOPs” are usually twice as many.
    """

    parameters: int
    macs: int


def measure_cost(model: bytes, image: Image, *, min_score: float) -> GraphCost:
    """Count a network's weights, and what it computes for one photo.

    A detector looks at more or fewer proposals and instances in every photo, so nothing is
    assumed about their number: the graph runs once and tells the sizes of its arrays. Left out
    is what lies in loops and branches, which bundles of maskserve do not have, and all cheap
    operations: activations, resizing, non-maximum suppression.

    Args:
        model: Content of ``model.onnx``.
        image: As for :meth:`OpenVinoEngine.infer`.
        min_score: Weaker detections do not reach the mask head.

    Raises:
        BundleCorruptError: It is not a graph.
        EngineError: OpenVINO failed on the photo.
    """
    openvino = import_openvino()
    operations = import_module("openvino.opset13")
    core = openvino.Core()
    try:
        graph = core.read_model(model)
        nodes = graph.get_ordered_ops()
        counted = [node for node in nodes if node.get_type_name() in _COUNTED]
        sizes = [
            operations.result(operations.shape_of(port))
            for node in counted
            for port in (node.input_value(0), node.input_value(1), node.output(0))
        ]
        graph.add_results(sizes)
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise BundleCorruptError(f"OpenVINO cannot use the graph: {_brief(error)}") from error
    try:
        outputs = compiled(
            {"image": image[None], "min_score": np.array([min_score], dtype=np.float32)}
        )
    except RuntimeError as error:
        raise EngineError(f"OpenVINO failed: {_brief(error)}") from error
    shapes = [[int(n) for n in outputs[i]] for i in range(len(outputs) - len(sizes), len(outputs))]
    macs = sum(_count_macs(node, *shapes[3 * i : 3 * i + 3]) for i, node in enumerate(counted))
    weights = [
        node.output(0)
        for node in nodes
        # Other constants are shapes, indices and axes.
        if node.get_type_name() == "Constant"
        and node.get_element_type().to_string() not in ("i32", "i64", "boolean")
    ]
    return GraphCost(sum(prod(port.get_shape()) for port in weights), macs)


def measure_peak(*, precision: Precision = "auto") -> float:
    """The most that the cores compute, in multiply-accumulate operations a second.

    The best of many products of two matrices, in the arithmetic that networks use: the floor for
    the time of a network is its :attr:`GraphCost.macs` over this.
    """
    openvino = import_openvino()
    operations = import_module("openvino.opset13")
    core = openvino.Core()
    best = 0.0
    for n in _PEAK_SIZES:
        matrix = np.full((n, n), 0.5, dtype=np.float32)
        left = operations.parameter([n, n], np.float32)
        product = operations.matmul(left, operations.constant(matrix), False, False)
        graph = openvino.Model([product], [left])
        request = core.compile_model(graph, "CPU", _config(precision)).create_infer_request()
        for _ in range(_PEAK_ROUNDS):
            start = time.perf_counter()
            request.infer([matrix], share_inputs=True, share_outputs=True)
            best = max(best, n**3 / (time.perf_counter() - start))
    return best


_PEAK_SIZES = (512, 1024)
_PEAK_ROUNDS = 50
_COUNTED = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"})


def _count_macs(node: Any, data: list[int], weights: list[int], output: list[int]) -> int:
    """Of an operation, from the shapes of its inputs and its output."""
    match node.get_type_name():
        case "Convolution":  # weights: (out, in, *kernel)
            return prod(output) * prod(weights[1:])
        case "GroupConvolution":  # weights: (groups, out, in, *kernel)
            return prod(output) * prod(weights[2:])
        case "ConvolutionBackpropData":  # weights: (in, out, *kernel)
            return prod(data) * prod(weights[1:])
        case _:
            return prod(output) * data[-2 if node.get_attributes()["transpose_a"] else -1]


def _brief(error: RuntimeError) -> str:
    """OpenVINO's message without the lines that name its own source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from"))
