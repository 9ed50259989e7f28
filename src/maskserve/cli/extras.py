"""Importing what is not part of the base install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from maskserve.core.errors import MissingExtraError

__all__ = ["batch_extra", "quantize_extra", "ray_extra", "report_extra", "train_extra"]

_BATCH_PACKAGES = frozenset({"fsspec", "pyarrow"})
_REPORT_PACKAGES = frozenset({"matplotlib"})
_RAY_PACKAGES = frozenset({"a2wsgi", "fsspec", "pyarrow", "ray", "starlette"})
_TRAIN_PACKAGES = frozenset(
    {"lightning", "matplotlib", "onnx", "onnxscript", "safetensors", "torch", "torchvision"}
)


@contextmanager
def batch_extra() -> Iterator[None]:
    """Around imports of ``maskserve.batch``.

    Raises:
        MissingExtraError: One of the packages of the extra ``batch`` is not installed.
    """
    with _extra("batch", _BATCH_PACKAGES):
        yield


@contextmanager
def quantize_extra() -> Iterator[None]:
    """Around imports of ``maskserve.export.quantize``.

    Raises:
        MissingExtraError: One of the packages of the extra ``quantize`` is not installed.
    """
    with _extra("quantize", _TRAIN_PACKAGES | {"onnxruntime"}):
        yield


@contextmanager
def ray_extra() -> Iterator[None]:
    """Around imports of ``maskserve.cluster``.

    Raises:
        MissingExtraError: One of the packages of the extra ``ray`` is not installed.
    """
    with _extra("ray", _RAY_PACKAGES):
        yield


@contextmanager
def report_extra() -> Iterator[None]:
    """Around imports of ``maskserve.reporting``.

    Raises:
        MissingExtraError: The extra ``report``, which is matplotlib, is not installed.
    """
    with _extra("report", _REPORT_PACKAGES):
        yield


@contextmanager
def train_extra() -> Iterator[None]:
    """Around imports of ``maskserve.training`` and ``maskserve.export``.

    Raises:
        MissingExtraError: One of the packages of the extra ``train`` is not installed.
    """
    with _extra("train", _TRAIN_PACKAGES):
        yield


@contextmanager
def _extra(name: str, packages: frozenset[str]) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise MissingExtraError(
            f"This command needs {package}, which the base install leaves out.",
            hint=f"Install it with: pip install 'maskserve[{name}]'",
        ) from None
