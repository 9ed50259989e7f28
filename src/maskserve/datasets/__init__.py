"""Annotated photos: readers of several formats that all yield the same typed samples."""

from maskserve.datasets.check import check_dataset
from maskserve.datasets.loading import FORMAT_NAMES, available_splits, load_dataset, read_dataset
from maskserve.datasets.split import split_dataset
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample

__all__ = [
    "FORMAT_NAMES",
    "Annotation",
    "Dataset",
    "Polygon",
    "Sample",
    "available_splits",
    "check_dataset",
    "load_dataset",
    "read_dataset",
    "split_dataset",
]
