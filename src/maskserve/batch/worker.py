"""From the photos of a part to its rows, the same on one machine and on many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from maskserve.batch.rows import ListedPhoto, Row, error_row, instance_rows, photo_row
from maskserve.batch.run import PartSummary, Run
from maskserve.batch.storage import read_photo
from maskserve.core.errors import EngineError, ImageError
from maskserve.core.predictor import Predictor
from maskserve.runtime.image_io import (
    FILE_LIMITS,
    IMAGE_SUFFIXES,
    decode_image,
    encode_image,
    media_type_of,
)
from maskserve.runtime.render import draw

__all__ = ["PartWorker"]

_READERS = 4
_AHEAD_BYTES = 64 * 2**20


class PartWorker:
    """Works off parts of a run, one after another.

    Memory does not grow with the photos of a run: held are one photo, the rows of one part, and
    up to four files, together 64 MiB unless one alone is larger, that are read meanwhile.

    Args:
        run: Names the photos and takes the rows.
        predictor: Finds the instances.
    """

    def __init__(self, run: Run, predictor: Predictor) -> None:
        self._run = run
        self._predictor = predictor

    def work(self, part: int, *, on_photo: Callable[[], None] = lambda: None) -> PartSummary:
        """Write the rows of a part's photos, and the pictures if they are asked for.

        A photo that cannot be used gets a row that says so.

        Args:
            part: Its number, 0-based.
            on_photo: Called after each photo.

        Raises:
            DownloadError: The photos' store cannot be reached.
            OutputError: The rows cannot be written.
        """
        manifest = self._predictor.manifest
        photos: list[Row] = []
        instances: list[Row] = []
        for photo, read in _read_ahead(self._run.photos_of(part)):
            content = None
            try:
                content = read.result()
                photo_of, instances_of = self._look_at(photo, content)
            except (ImageError, EngineError) as error:
                photos.append(error_row(photo, content, error, manifest=manifest))
            else:
                photos.append(photo_of)
                instances += instances_of
            on_photo()
        return self._run.store(part, photos, instances)

    def _look_at(self, photo: ListedPhoto, content: bytes) -> tuple[Row, list[Row]]:
        settings = self._run.settings
        image = decode_image(content, limits=FILE_LIMITS)
        found = self._predictor.predict(image, min_score=settings.min_score)
        picture = None
        if settings.pictures is not None:
            suffix = Path(photo.address).suffix.lower()
            if settings.pictures == "mask" or suffix not in IMAGE_SUFFIXES:
                suffix = ".png"
            picture = self._run.picture_name(photo, suffix)
            drawn = draw(image, found, style=settings.pictures)
            media_type = media_type_of(Path(picture))
            self._run.folder.write(picture, encode_image(drawn, media_type))
        manifest = self._predictor.manifest
        row = photo_row(photo, content, found, manifest=manifest, picture=picture)
        return row, instance_rows(photo, found)


def _read_ahead(photos: Sequence[ListedPhoto]) -> Iterator[tuple[ListedPhoto, Future[bytes]]]:
    """The photos in order, while the files of the next ones are read."""
    with ThreadPoolExecutor(_READERS) as pool:
        reading: deque[tuple[ListedPhoto, Future[bytes]]] = deque()
        ahead_bytes = 0
        for photo in photos:
            while reading and (len(reading) == _READERS or ahead_bytes + photo.size > _AHEAD_BYTES):
                ahead_bytes -= reading[0][0].size
                yield reading.popleft()
            ahead_bytes += photo.size
            max_bytes = FILE_LIMITS.max_bytes
            future = pool.submit(read_photo, photo.address, photo.size, max_bytes=max_bytes)
            reading.append((photo, future))
        yield from reading
