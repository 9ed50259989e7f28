"""Reading and writing weights without ever unpickling code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskserve.core.errors import ParameterError
from maskserve.models.numpy_pickle import load_arrays
from maskserve.runtime.files import replacing

__all__ = ["WEIGHTS_FILE", "load_matching", "read_weights", "write_weights"]

WEIGHTS_FILE = "weights.safetensors"
"""A run's weights, in its folder."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file, a torch checkpoint, or a pickle of arrays.

    A checkpoint of a training may hold more, such as the optimiser's state; that is left out. A
    ``.pkl`` of numpy arrays is what Detectron2's model zoo has.

    Raises:
        ParameterError: The file is missing, damaged, or would have to be run to be read.
    """
    try:
        state = _load(path)
    except FileNotFoundError:
        raise ParameterError(f"There is no file of weights at {path}.") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise ParameterError(
            f"{path} is not a file of weights: {str(error).splitlines()[0]}.",
            hint="A .safetensors file, a torch checkpoint or a .pkl that holds nothing but "
            "numbers is expected.",
        ) from None
    if isinstance(state, Mapping) and ("blobs" in state or state.get("matching_heuristics")):
        raise ParameterError(
            f"{path} has the names of Caffe2 or of another library.",
            hint="Load it with Detectron2 once and save it again with its DetectionCheckpointer.",
        )
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise ParameterError(f"{path} does not hold tensors by name.")
    # Models that were trained on several GPUs hold theirs as “module”.
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {
        str(name).removeprefix(prefix): _tensor(value, name, path) for name, value in state.items()
    }


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".pkl" and not zipfile.is_zipfile(path):  # a zip was written by torch
        return load_arrays(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensor(value: object, name: object, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray | np.number) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value))
    raise ParameterError(
        f"{path} does not hold tensors by name: {name} is a {type(value).__name__}."
    )


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a ``.safetensors`` file under a temporary name, then rename it."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)


def load_matching(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> list[str]:
    """Load every tensor whose name and shape fit.

    Returns:
        Names of the module's parameters and buffers that were left as they are.

    Raises:
        ParameterError: Less than half of the module's tensors are in ``state``, so it belongs
            to another model.
    """
    own = module.state_dict()
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if name in own and own[name].shape == tensor.shape
    }
    if len(fitting) < len(own) / 2:
        raise ParameterError(
            f"{where} does not fit this model: {len(fitting)} of its {len(own)} tensors match.",
            hint="Check that it was made for the same backbone.",
        )
    module.load_state_dict(fitting, strict=False)
    return [
        name for name in own if name not in fitting and not name.endswith("num_batches_tracked")
    ]
