"""Weights of a bundle, under the names that a network has them by.

A bundle's graph is made for answering: its convolutions hold the batch norms behind them. Which
weight and which norm made a product is lost, and nothing depends on it; any two that multiply to
it compute the same. Here every filter gets a length of 1, and its norm the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import onnx
import torch
from onnx import GraphProto, TensorProto, numpy_helper
from torch import Tensor, nn

from maskserve.core.errors import ParameterError
from maskserve.models.build import build_model
from maskserve.models.mask_rcnn import LightDesign
from maskserve.runtime.bundle import Bundle

__all__ = ["read_bundle_weights"]

_PREFIX = "model."  # of the trained model inside the network that is exported
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def read_bundle_weights(bundle: Bundle, design: LightDesign) -> dict[str, Tensor]:
    """Weights for a model of :func:`maskserve.models.build_model` that answers as the bundle does.

    Norms have a mean of 0 and a variance of 1, whatever they see; before those that learn their
    statistics can go on, they need real ones: :func:`maskserve.training.norms.set_statistics`.

    Args:
        bundle: Of a light model.
        design: The model's.

    Returns:
        float32, every tensor of the model's ``state_dict``.

    Raises:
        ParameterError: The graph is another one than this package exports of such a model, or
            its weights were rounded to integers.
    """
    manifest = bundle.manifest
    model = build_model(
        manifest.backbone,
        classes=len(manifest.classes),
        preprocess=manifest.preprocess,
        design=design,
    )
    graph = onnx.load_from_string(bundle.model).graph
    try:
        model.load_state_dict(model.state_dict() | dict(_match(model, graph)))
    except (KeyError, RuntimeError):
        raise ParameterError(
            f"A training cannot start from {bundle.path}: its graph does not hold the weights of "
            f"a {manifest.backbone} as this package stores them.",
            hint="Start from the bundle that was exported, not from one that was quantised since, "
            "or from the weights.safetensors of its run.",
        ) from None
    state: dict[str, Tensor] = model.state_dict()
    return state


def _match(model: nn.Module, graph: GraphProto) -> Iterator[tuple[str, Tensor]]:
    """Parameters and statistics of the model by name.

    Filters that were multiplied with their norm's scale at export may have lost their names, but
    are in the order in which the model computes, which is also that of its layers.
    """
    constants = _constants(graph)
    named, nameless = {}, []
    for name, filters in _filters(graph, constants):
        if name.startswith(_PREFIX):
            named[name] = filters
        else:
            nameless.append(filters)
    rest = iter(nameless)
    done = set()
    for conv, norm in _normed_convolutions(model):
        weight, shift = named.get(f"{_PREFIX}{conv}.weight") or next(rest)
        length = weight.flatten(1).norm(dim=1)
        length = torch.where(length > 0, length, 1.0)
        yield f"{conv}.weight", weight / length.view(-1, 1, 1, 1)
        yield f"{norm}.weight", length
        yield f"{norm}.bias", shift
        yield f"{norm}.running_mean", torch.zeros_like(length)
        yield f"{norm}.running_var", torch.ones_like(length)
        done |= {conv, norm}
    for name, _ in model.named_parameters():
        if name.rpartition(".")[0] not in done:
            yield name, constants[_PREFIX + name]


def _normed_convolutions(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the convolutions that a batch norm follows, and of these; in the model's order."""
    norms = {}
    for parent, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            for (conv, _), (norm, layer) in pairwise(module.named_children()):
                if isinstance(layer, nn.BatchNorm2d):
                    norms[f"{parent}.{conv}"] = f"{parent}.{norm}"
    return ((name, norms[name]) for name, _ in model.named_modules() if name in norms)


def _constants(graph: GraphProto) -> dict[str, Tensor]:
    """Float tensors of the graph by name, and those that it makes of them by widening."""
    constants = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in graph.initializer
        if tensor.data_type in _FLOATS
    }
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _filters(
    graph: GraphProto, constants: dict[str, Tensor]
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Weights and biases of the convolutions with a name of each, in the order of the graph."""
    products = {node.output[0]: node.input for node in graph.node if node.op_type == "Mul"}
    for node in graph.node:
        if node.op_type == "Conv":
            _, weight, bias = node.input
            factors = products.get(weight, [weight])
            if all(factor in constants for factor in (*factors, bias)):
                product = constants[factors[0]]
                for factor in factors[1:]:
                    product = product * constants[factor]
                yield factors[0], (product, constants[bias])
