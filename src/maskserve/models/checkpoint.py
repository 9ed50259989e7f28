"""Reading and writing weights without ever unpickling code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskserve.core.errors import ParameterError
from maskserve.runtime.files import replacing

__all__ = ["load_matching", "read_weights", "write_weights"]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file or a weights-only torch checkpoint.

    Raises:
        ParameterError: The file is missing, damaged, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ParameterError(f"There is no file of weights at {path}.") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise ParameterError(
            f"{path} is not a file of weights: {str(error).splitlines()[0]}",
            hint="A .safetensors file or a torch checkpoint that holds nothing but tensors is "
            "expected.",
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ParameterError(f"{path} does not hold tensors by name.")
    return dict(state)


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
