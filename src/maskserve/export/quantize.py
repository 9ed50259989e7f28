"""Bundles whose heavy convolutions compute with 8-bit integers.

Post-training static quantisation (Jacob et al., https://arxiv.org/abs/1712.05877) by ONNX Runtime:
weights per channel and activations per tensor, ranges observed on photos. Backbone, pyramid,
proposals and the box head's hidden layers are most of a ResNet's work and stand it well. Left in
floating point are

- the mask head: it sees few boxes, and a mask shows every error;
- the last layers of proposals and detections, whose scores and boxes are compared with each other;
- depthwise convolutions, which wait for memory and not for arithmetic. They are why a MobileNet
  gains nothing here.
"""

from __future__ import annotations

import hashlib
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from pycocotools import mask as coco_mask

from maskserve.core.errors import ParameterError
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.export.bundle import publish, require_free_place, scratch_bundle, with_name
from maskserve.runtime.bundle import MANIFEST_NAME, MODEL_NAME, Bundle, read_bundle
from maskserve.runtime.image_io import read_image
from maskserve.runtime.openvino_engine import OpenVinoEngine
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.preprocess import to_graph_input

__all__ = ["Agreement", "Quantized", "quantize_bundle"]

_HELD_BACK = 4
"""Of so many photos one is not calibrated on: there the two bundles are compared."""
_NARROW = 16
"""Convolutions with fewer output channels are left alone: they give the proposals."""
_LAYERS = ("Conv", "Gemm")
_SAME_IOU = 0.5
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a bundle's answers changed, at its default threshold.

    Attributes:
        photos: That were compared; none of them was calibrated on.
        instances: Of the original.
        kept: Of these, found again: same class, mask IoU of at least 0.5.
        added: Found by the new bundle alone.
        mask_iou: Mean over the kept ones; NaN if there are none.
        covered_points: Mean difference of the masked share of a photo, in percentage points.
        time_ratio: The network's time over the original's, medians of runs in turns.
    """

    photos: int
    instances: int
    kept: int
    added: int
    mask_iou: float
    covered_points: float
    time_ratio: float


@dataclass(frozen=True, slots=True)
class Quantized:
    """What :func:`quantize_bundle` did.

    Attributes:
        name: Of the new model.
        layers: Convolutions and fully connected layers that compute with integers now.
        left: Those that do not.
        agreement: Between the two.
    """

    name: str
    layers: int
    left: int
    agreement: Agreement


def quantize_bundle(
    bundle: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    name: str | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Write a bundle's 8-bit twin.

    Args:
        bundle: The original; it stays as it is.
        photos: Of the kind that the model will see, at least four. In some of them it must find
            something.
        out: The new bundle: a folder, or a file that ends in ``.zip``.
        name: In the API; by default the original's with ``-int8`` behind it.
        on_step: Is told what is being done, in words.

    Raises:
        BundleMissingError, BundleCorruptError: The bundle cannot be read.
        ImageError: A photo cannot be read.
        ParameterError: There are too few photos, nothing is found in them, or the name is not one
            that the API can have.
        ExportError: ``out`` is something else than a bundle.
        OutputError: ``out`` cannot be written.
    """
    require_free_place(out)
    original = read_bundle(bundle)
    manifest = with_name(original.manifest, name or f"{original.manifest.name}-int8")
    if len(photos) < _HELD_BACK:
        raise ParameterError(
            f"{len(photos)} photos are too few: at least {_HELD_BACK} are needed.",
            hint="Some dozen that show what the model looks for are better.",
        )
    held_back = [read_image(photo) for photo in photos[::_HELD_BACK]]
    calibrated_on = [p for index, p in enumerate(photos) if index % _HELD_BACK]
    before = _predictor(original, original.model)
    on_step("Looking for instances")
    found = [before.predict(photo) for photo in held_back]
    if not any(len(instances) for instances in found):
        raise ParameterError(
            f"The model finds nothing in {len(held_back)} of the photos.",
            hint="Calibration needs photos that show what the model looks for.",
        )
    with scratch_bundle(out) as folder:
        content, layers, left = _quantize(original, calibrated_on, folder / MODEL_NAME, on_step)
        on_step(f"Comparing answers to {len(held_back)} photos")
        agreement = _compare(before, _predictor(original, content), held_back, found)
        manifest = manifest.model_copy(
            update={
                "metrics": {},  # the original's do not hold
                "provenance": manifest.provenance.model_copy(
                    update={
                        "settings": manifest.provenance.settings
                        | {"int8": {"of": original.manifest.name, "photos": len(calibrated_on)}}
                    }
                ),
                "tool_versions": manifest.tool_versions
                | {tool: version(tool) for tool in ("maskserve", "onnx", "onnxruntime")},
                "files": {MODEL_NAME: hashlib.sha256(content).hexdigest()},
            }
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        publish(folder, out)
    return Quantized(manifest.name, layers, left, agreement)


def _predictor(bundle: Bundle, model: bytes) -> EnginePredictor:
    engine = OpenVinoEngine(model, precision=bundle.manifest.arithmetic)
    return EnginePredictor(engine, bundle.manifest)


def _quantize(
    bundle: Bundle, photos: Sequence[Path], path: Path, on_step: Callable[[str], None]
) -> tuple[bytes, int, int]:
    """The graph in 8 bits, and how many layers became integer and how many did not."""
    graph = _fold_constants(onnx.load_from_string(bundle.model))
    layers = [node for node in graph.graph.node if node.op_type in _LAYERS]
    worth_it = _worth_it(graph)
    left = [node.name for node in layers if node.name not in worth_it]
    wide = path.with_name("float.onnx")
    onnx.save(graph, wide)
    with _silenced():
        quantize_static(
            wide,
            path,
            _Photos(bundle, photos, on_step),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS),
            nodes_to_exclude=left,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    wide.unlink()
    return path.read_bytes(), len(layers) - len(left), len(left)


def _fold_constants(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with weights that stand there as they are: not halved, scaled or transposed."""
    model = onnx_ir.from_proto(graph)
    fold_constants(
        model, onnx_shape_inference=False, input_size_limit=2**31, output_size_limit=2**31
    )
    remove_unused_nodes(model)
    return onnx_ir.to_proto(model)


class _Photos(CalibrationDataReader):  # type: ignore[misc]
    """Feeds ONNX Runtime one photo after the other."""

    def __init__(
        self, bundle: Bundle, photos: Sequence[Path], on_step: Callable[[str], None]
    ) -> None:
        self._inputs = _graph_inputs(bundle, photos, on_step)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._inputs, None)


def _graph_inputs(
    bundle: Bundle, photos: Sequence[Path], on_step: Callable[[str], None]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    # No masks are needed: their head stays as it is.
    nothing = np.ones(1, dtype=np.float32)
    for number, photo in enumerate(photos, start=1):
        on_step(f"Calibrating on photo {number} of {len(photos)}")
        image = to_graph_input(read_image(photo), bundle.manifest.preprocess)
        yield {"image": image[None], "min_score": nothing}


def _worth_it(graph: onnx.ModelProto) -> set[str]:
    """Names of the layers that compute with integers from now on."""
    shapes = {tensor.name: tensor.dims for tensor in graph.graph.initializer}
    rectified = {name for node in graph.graph.node if node.op_type == "Relu" for name in node.input}
    pooled: set[str] = set()  # what depends on boxes
    names = set()
    for node in graph.graph.node:  # in topological order
        of_boxes = node.op_type == "RoiAlign" or not pooled.isdisjoint(node.input)
        if of_boxes:
            pooled.update(node.output)
        if node.op_type == "Gemm" and node.output[0] in rectified:
            names.add(node.name)
        elif node.op_type == "Conv" and not of_boxes:
            grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
            if not grouped and shapes[node.input[1]][0] >= _NARROW:
                names.add(node.name)
    return names


@contextmanager
def _silenced() -> Iterator[None]:
    """ONNX Runtime advises, through the root logger, to simplify graphs; these are simple."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _compare(
    before: EnginePredictor,
    after: EnginePredictor,
    photos: Sequence[Image],
    found: Sequence[Instances],
) -> Agreement:
    ious: list[float] = []
    added = 0
    points = []
    for photo, old in zip(photos, found, strict=True):
        new = after.predict(photo)
        same = _match(old, new)
        ious += same
        added += len(new) - len(same)
        points.append(abs(old.coverage().masked_percent - new.coverage().masked_percent))
    return Agreement(
        photos=len(photos),
        instances=sum(len(instances) for instances in found),
        kept=len(ious),
        added=added,
        mask_iou=statistics.fmean(ious) if ious else float("nan"),
        covered_points=statistics.fmean(points),
        time_ratio=_time_ratio(before, after, photos[0]),
    )


def _match(old: Instances, new: Instances) -> list[float]:
    """Mask IoU of each instance that is in both, best pairs first."""
    if not len(old) or not len(new):
        return []
    iou = np.array(coco_mask.iou(old.rles(), new.rles(), [False] * len(new)))
    iou[old.class_indices[:, None] != new.class_indices[None]] = 0
    ious = []
    while iou.max() >= _SAME_IOU:
        i, j = np.unravel_index(iou.argmax(), iou.shape)
        ious.append(float(iou[i, j]))
        iou[i], iou[:, j] = 0, 0
    return ious


def _time_ratio(before: EnginePredictor, after: EnginePredictor, photo: Image) -> float:
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for predictor, times in zip((before, after), spent, strict=True):
            start = time.perf_counter()
            predictor.predict(photo)
            times.append(time.perf_counter() - start)
    return statistics.median(spent[1]) / statistics.median(spent[0])
