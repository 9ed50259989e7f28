"""A data set that is being written, as every format's writer gets to know it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from maskserve.core.errors import OutputError
from maskserve.core.masks import decode_rle, polygons_to_rle
from maskserve.datasets.photos import photo_file_name
from maskserve.datasets.polygons import join_polygons, trace_mask
from maskserve.datasets.types import Annotation, Dataset, Polygon, Sample

__all__ = ["Target", "new_folder", "require_free"]


@dataclass(frozen=True, slots=True)
class Target:
    """A new data set: where it goes, and what its format cannot hold.

    Attributes:
        root: Its folder, empty at first.
        link: Whether photos become hard links instead of copies.
        on_photo: Is called after each photo.
        losses: How often what was lost, by a phrase in the singular.
    """

    root: Path
    link: bool = False
    on_photo: Callable[[], None] = lambda: None
    losses: Counter[str] = field(default_factory=Counter)

    def name_photos(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, str]]:
        """Each sample with a file name for its photo.

        No two of these names differ by suffix or case alone: some formats name other files
        after a photo, and some disks take ``A.jpg`` for ``a.jpg``. Names with a suffix that
        does not belong to a photo get one that does.
        """
        taken: set[str] = set()
        for sample in samples:
            name = photo_file_name(sample.image_path)
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 -- of a name, not of a path
            number = 1
            while name.rpartition(".")[0].casefold() in taken:
                number += 1
                name = f"{stem}-{number}{suffix}"
            taken.add(name.rpartition(".")[0].casefold())
            self.losses["photo renamed"] += name != sample.image_path.name
            yield sample, name

    def add_photo(self, sample: Sample, path: Path) -> None:
        """Put the photo of a sample at ``path``, with the EXIF orientation that it has."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            _link(sample.image_path, path)
        else:
            shutil.copyfile(sample.image_path, path)
        self.on_photo()

    def keep_used_classes(self, datasets: Iterable[Dataset]) -> list[str]:
        """Names of the classes that have an instance, sorted, for formats that list no classes."""
        datasets = list(datasets)
        used = {
            dataset.categories.names[annotation.class_index]
            for dataset in datasets
            for sample in dataset.samples
            for annotation in sample.annotations
            if not annotation.is_crowd
        }
        listed = {name for dataset in datasets for name in dataset.categories.names}
        self.losses["class without any instance left out"] += len(listed - used)
        return sorted(used)

    def single_instances(self, sample: Sample) -> list[Annotation]:
        """The annotations of a sample that stand for one instance, for formats without crowds."""
        instances = [a for a in sample.annotations if not a.is_crowd]
        self.losses["crowd region left out"] += len(sample.annotations) - len(instances)
        return instances

    def outlines(self, sample: Sample) -> Iterator[tuple[Annotation, Polygon]]:
        """The instances of a sample with one outline each, for formats without masks and parts.

        An outline that was one already is left as it is. Any other has, by COCO's rules, exactly
        the pixels of the instance.
        """
        for annotation in self.single_instances(sample):
            if len(annotation.polygons) == 1:
                yield annotation, annotation.polygons[0]
                continue
            rle = annotation.to_rle(sample.image_size)
            if annotation.polygons:
                self.losses["instance of several parts joined into one outline"] += 1
                outline = join_polygons(annotation.polygons)
                if polygons_to_rle([outline], sample.image_size) == rle:
                    yield annotation, outline
                    continue
            else:
                self.losses["mask turned into an outline of the same pixels"] += 1
            yield annotation, join_polygons(trace_mask(decode_rle(rle)))


def require_free(path: Path) -> None:
    """Refuse a place for a new data set where something is already.

    Raises:
        OutputError: ``path`` is a file, or a folder that holds something.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(
            f"{path} is there already, and not empty.", hint="Name a folder that is not there yet."
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``path`` at the end.

    It lies beside ``path``. When the block fails it is removed with all that is in it.

    Raises:
        OutputError: ``path`` holds something, or cannot be written.
    """
    require_free(path)
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
            folder = Path(temporary) / "data"
            folder.mkdir()
            yield folder
            if path.exists():
                path.rmdir()  # on Windows a folder takes the place of nothing else
            folder.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            hint="Choose a folder that you may write to, on a disk with room.",
        ) from error


def _link(photo: Path, path: Path) -> None:
    try:
        path.hardlink_to(photo.resolve())
    except OSError as error:
        raise OutputError(
            f"{photo} cannot be linked: {error.strerror}.",
            hint="Links need a disk that has both folders; copy the photos instead.",
        ) from error
