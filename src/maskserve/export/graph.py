"""From a trained network to an ONNX graph for photos of any size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import ExportError
from maskserve.core.manifest import GRAPH_INPUTS, GRAPH_OUTPUTS
from maskserve.models import InferenceNetwork

__all__ = ["Precision", "write_graph"]

Precision = Literal["f16", "f32"]

_OPSET = 18
_EXAMPLE_SIZE = (480, 640)


def write_graph(
    model: MaskRCNN, path: Path, *, max_instances: int, precision: Precision = "f16"
) -> None:
    """Export a model to ``path``; the graph is the one that ``core.manifest`` describes.

    Args:
        model: In evaluation mode.
        path: The ``.onnx`` file to write.
        max_instances: The graph gives no more than these.
        precision: How weights are stored. ``f16`` halves the file; engines widen the weights
            on loading, so it has nothing to do with how they compute.

    Raises:
        ExportError: PyTorch could not export the network.
    """
    network = InferenceNetwork(model, max_instances=max_instances)
    # Found on this image: something in every branch, so that none is traced as never taken.
    image = torch.randint(0, 256, (1, *_EXAMPLE_SIZE, 3), dtype=torch.uint8)
    any_size = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notices about torchvision's own operators
            program = torch.onnx.export(
                network,
                (image, torch.tensor([0.0])),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=list(GRAPH_INPUTS),
                output_names=list(GRAPH_OUTPUTS),
                dynamic_shapes={"image": any_size, "min_score": None},
            )
    except Exception as error:
        raise ExportError(f"PyTorch could not export the network: {error}") from error
    if program is None:
        raise ExportError("PyTorch exported nothing.")
    graph = program.model_proto
    _strip_notes(graph)
    if precision == "f16":
        _store_half(graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _strip_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: source paths of the machine, and as large as the weights."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        value.ClearField("doc_string")
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    model.graph.ClearField("doc_string")
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _store_half(model: onnx.ModelProto, *, smallest: int = 1024) -> None:
    """Store large float32 weights as float16 behind a Cast, which engines fold at loading."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < smallest:
            continue
        wide = tensor.name
        half = numpy_helper.from_array(values.astype(np.float16), f"{wide}.half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [wide], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
