"""Importing what is not part of the base install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from maskserve.core.errors import MissingExtraError

__all__ = ["train_extra"]

_TRAIN_PACKAGES = frozenset(
    {"lightning", "matplotlib", "onnx", "onnxscript", "safetensors", "torch", "torchvision"}
)


@contextmanager
def train_extra() -> Iterator[None]:
    """Around imports of ``maskserve.training`` and ``maskserve.export``.

    Raises:
        MissingExtraError: One of the packages of the extra ``train`` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _TRAIN_PACKAGES:
            raise
        raise MissingExtraError(
            f"This command needs {package}, which the base install leaves out.",
            hint="Install it with: pip install 'maskserve[train]'",
        ) from None
