"""Reading pickles of numpy arrays without running what else a pickle may hold.

A pickle is a program: it names functions and calls them. Here only those can be named that put an
array together from its bytes.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["load_arrays"]


def _encode(text: str, encoding: str) -> bytes:
    """In place of ``codecs.encode``, by which old protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """In place of ``bytes``, which old protocols call where there are none."""
    return b""


def _from_buffer(buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> Any:
    """In place of numpy's function of this name, by which protocol 5 writes arrays."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


_scalar = np.float32(0).__reduce__()[0]
_reconstruct = np.zeros(0).__reduce__()[0]
_ALLOWED = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    # numpy 2 has moved these.
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it holds {module}.{name}, which is neither a number nor an array"
            ) from None

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside, {pid!r}")


def load_arrays(path: Path) -> Any:
    """What a pickle holds: containers, numbers, text and numpy arrays.

    Text of Python 2 is read as Latin-1, as Detectron2 reads it.

    Raises:
        OSError: The file cannot be read.
        pickle.UnpicklingError: It is damaged, or holds anything else, which is named and was not
            run.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, OSError):
            raise
        except Exception as error:  # what a damaged pickle may raise is not limited
            raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__})") from error
