"""Annotated photos: readers of several formats that all yield the same typed samples."""

from maskserve.datasets.balloon_dataset import write_balloon_dataset
from maskserve.datasets.check import CheckReport, check_dataset
from maskserve.datasets.fetch import RELEASE_NAMES, Release, fetch_release, find_release
from maskserve.datasets.loading import (
    FORMAT_NAMES,
    available_splits,
    load_dataset,
    load_splits,
    read_dataset,
)
from maskserve.datasets.split import divide_dataset, fold_dataset, split_dataset
from maskserve.datasets.subset import select_classes
from maskserve.datasets.summary import SplitSummary, Spread, summarise_split
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample
from maskserve.datasets.writing import WRITABLE_FORMAT_NAMES, write_dataset

__all__ = [
    "FORMAT_NAMES",
    "RELEASE_NAMES",
    "WRITABLE_FORMAT_NAMES",
    "Annotation",
    "CheckReport",
    "Dataset",
    "Polygon",
    "Release",
    "Sample",
    "SplitSummary",
    "Spread",
    "available_splits",
    "check_dataset",
    "divide_dataset",
    "fetch_release",
    "find_release",
    "fold_dataset",
    "load_dataset",
    "load_splits",
    "read_dataset",
    "select_classes",
    "split_dataset",
    "summarise_split",
    "write_balloon_dataset",
    "write_dataset",
]
