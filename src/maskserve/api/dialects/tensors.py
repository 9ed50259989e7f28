"""Tensors of the Open Inference Protocol, as JSON and by its binary data extension.

https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from maskserve.core.errors import ParameterError

__all__ = ["InputTensor", "OutputTensor", "split_binary"]


class _InputParameters(BaseModel):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class InputTensor(BaseModel):
    """A tensor of a request; its values stand in ``data`` or behind the JSON."""

    name: str
    datatype: str
    shape: list[Annotated[int, Field(ge=0)]]
    parameters: _InputParameters = _InputParameters()
    data: Any = None


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor of an answer.

    Attributes:
        name: As the metadata of the model has it.
        datatype: ``FP32``, ``INT64``, ``UINT8`` or ``BYTES``.
        shape: The same as that of ``values``.
        values: An array, or a list of texts for ``BYTES``.
    """

    name: str
    datatype: str
    values: npt.NDArray[Any] | Sequence[str]

    @property
    def shape(self) -> list[int]:
        return (
            list(np.shape(self.values))
            if isinstance(self.values, np.ndarray)
            else [len(self.values)]
        )

    def flat(self) -> list[Any]:
        """The values row by row, for JSON."""
        return (
            self.values.ravel().tolist() if isinstance(self.values, np.ndarray) else [*self.values]
        )

    def to_bytes(self) -> bytes:
        """The values in little-endian order; texts each behind its length."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype(self.values.dtype.newbyteorder("<")).tobytes()
        texts = [text.encode() for text in self.values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def split_binary(inputs: Sequence[InputTensor], data: memoryview) -> list[memoryview | None]:
    """What belongs to each input of the bytes behind the JSON, without a copy; None for none.

    Raises:
        ParameterError: The sizes that the inputs name do not add up to what came.
    """
    pieces: list[memoryview | None] = []
    rest = data
    for tensor in inputs:
        size = tensor.parameters.binary_data_size
        if size is not None and size > len(rest):
            raise ParameterError(
                f"Input “{tensor.name}” has binary_data_size {size}, but {len(rest)} bytes follow."
            )
        pieces.append(None if size is None else rest[:size])
        rest = rest[size or 0 :]
    if rest:
        raise ParameterError(f"{len(rest)} bytes behind the JSON belong to no input.")
    return pieces
