"""A few dozen annotated photos in, a measured Mask R-CNN and a REST API out.

from maskserve import load

predictor = load("balloon")  # or the path of a bundle
instances = predictor.predict(image_rgb)  # uint8, (H, W, 3)
instances.coverage().masked_percent
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskserve.runtime.registry import load_predictor as load

__all__ = ["__version__", "load"]

__version__ = version("maskserve")


def __getattr__(name: str) -> object:
    # Importing OpenVINO takes longer than all the rest, so it waits until somebody loads a model.
    if name == "load":
        from maskserve.runtime.registry import load_predictor  # noqa: PLC0415

        return load_predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
