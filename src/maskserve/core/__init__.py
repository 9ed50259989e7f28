"""Types, arithmetic and contracts without I/O; see README.md in this folder."""

from maskserve.core.categories import Categories
from maskserve.core.manifest import Manifest, Postprocess, Preprocess, Provenance
from maskserve.core.masks import MaskCrop, Rle
from maskserve.core.predictor import Image, Predictor
from maskserve.core.types import ClassCoverage, Coverage, Instances

__all__ = [
    "Categories",
    "ClassCoverage",
    "Coverage",
    "Image",
    "Instances",
    "Manifest",
    "MaskCrop",
    "Postprocess",
    "Predictor",
    "Preprocess",
    "Provenance",
    "Rle",
]
