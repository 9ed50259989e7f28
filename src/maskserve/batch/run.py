"""A run over many photos as it lies in its folder, so that a killed one can go on.

    run.json                       what was asked for; the run exists once this is there
    inputs.parquet                 the photos, one row group a part
    photos/part-00000.parquet      one row a photo; the part is done once this is there
    instances/part-00000.parquet   one row an instance; written before
    pictures/part-00000/…          drawn photos, where asked for; written before

Every file is there as a whole or not at all, under a name that depends on the part alone. So a part
that is worked on twice, after a kill or by two processes, leaves the files of one worked on once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskserve import __version__
from maskserve.batch.rows import INSTANCES, PHOTOS, ListedPhoto, Row
from maskserve.batch.storage import Folder, absolute, check_address, is_url, list_photos
from maskserve.core.errors import ImageMissingError, OutputError, ParameterError
from maskserve.core.manifest import Manifest
from maskserve.runtime.image_io import IMAGE_SUFFIXES
from maskserve.runtime.style import Style

__all__ = ["PartSummary", "Run", "RunSettings", "open_run", "settings_of"]

_RECORD = "run.json"
_INPUTS = "inputs.parquet"
_INPUTS_SCHEMA = pa.schema(
    [
        # Not a string, since the name of a file on this machine may be any bytes.
        pa.field("address", pa.binary(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
_READERS = 16


class RunSettings(BaseModel):
    """What the rows of a run depend on.

    Attributes:
        inputs: Absolute addresses, none within another.
        model_sha256: Of the model's manifest, which holds those of its files.
        min_score: Instances that score lower are left out.
        pictures: In which style photos are drawn; None if they are not.
        part_photos: Photos of a part; the last may have fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    maskserve: str = __version__
    inputs: tuple[str, ...]
    model: str
    model_version: str
    model_sha256: str
    min_score: float
    pictures: Style | None
    part_photos: Annotated[int, Field(ge=1)]


class _Record(RunSettings):
    photos: int
    left_out: int


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What came out for the photos of a part.

    Attributes:
        part: Its number, 0-based.
        photos: All of its photos.
        failed: Those that could not be used.
        instances: Found in the others.
        masked_percent_sum: Over the others.
    """

    part: int
    photos: int
    failed: int
    instances: int
    masked_percent_sum: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose photos are listed.

    Attributes:
        folder: Where its tables are.
        settings: What they depend on.
        photos: How many photos it has.
        left_out: Other files that lie between them.
    """

    folder: Folder
    settings: RunSettings
    photos: int
    left_out: int

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.photos // self.settings.part_photos)

    def photos_of(self, part: int) -> list[ListedPhoto]:
        """The photos of a part.

        Raises:
            OutputError: The run's folder cannot be read.
        """
        first = part * self.settings.part_photos
        with self.folder.open(_INPUTS) as file:
            columns = pq.ParquetFile(file).read_row_group(part).to_pydict()
        return [
            ListedPhoto(index, os.fsdecode(address), size)
            for index, (address, size) in enumerate(
                zip(columns["address"], columns["bytes"], strict=True), first
            )
        ]

    def picture_name(self, photo: ListedPhoto, suffix: str) -> str:
        """Where a drawn photo lies, in the run's folder."""
        part = photo.index // self.settings.part_photos
        return f"pictures/part-{part:05}/{photo.index:08}{suffix}"

    def store(self, part: int, photos: Sequence[Row], instances: Sequence[Row]) -> PartSummary:
        """Write the tables of a part, which is done by that.

        Raises:
            OutputError: They cannot be written.
        """
        self.folder.write(f"instances/{_file_name(part)}", _to_parquet(instances, INSTANCES))
        self.folder.write(f"photos/{_file_name(part)}", _to_parquet(photos, PHOTOS))
        sound = [row for row in photos if row.get("error_code") is None]
        return PartSummary(
            part,
            len(photos),
            len(photos) - len(sound),
            len(instances),
            sum(row["masked_percent"] for row in sound),
        )

    def done(self) -> dict[int, PartSummary]:
        """The parts that are done, by number. Their files are looked at: a damaged one is not.

        Raises:
            OutputError: The folder cannot be read.
        """
        written = set(self.folder.names("photos")) & set(self.folder.names("instances"))
        parts = [part for part in range(self.parts) if _file_name(part) in written]
        with ThreadPoolExecutor(_READERS) as readers:
            found = readers.map(self._summary_of, parts)
            return {summary.part: summary for summary in found if summary is not None}

    def tidy(self) -> None:
        """Remove what killed processes left; to be called once every part is done.

        Raises:
            OutputError: The folder cannot be written.
        """
        for table in ("photos", "instances"):
            self.folder.tidy(table)

    def _summary_of(self, part: int) -> PartSummary | None:
        """What the files of a part say; None if they are not what :meth:`store` writes."""
        try:
            with self.folder.open(f"photos/{_file_name(part)}") as file:
                table = pq.read_table(file, columns=["error_code", "instances", "masked_percent"])
            with self.folder.open(f"instances/{_file_name(part)}") as file:
                instances = pq.read_metadata(file).num_rows
        except (pa.ArrowInvalid, OSError, KeyError):
            return None
        first = part * self.settings.part_photos
        photos = min(self.settings.part_photos, self.photos - first)
        if len(table) != photos or (pc.sum(table["instances"]).as_py() or 0) != instances:
            return None
        return PartSummary(
            part,
            photos,
            photos - table["error_code"].null_count,
            instances,
            pc.sum(table["masked_percent"]).as_py() or 0.0,
        )


def settings_of(
    inputs: Sequence[str],
    manifest: Manifest,
    *,
    part_photos: int,
    min_score: float | None = None,
    pictures: Style | None = None,
) -> RunSettings:
    """The settings of a run.

    Args:
        inputs: Photos and folders: paths or URLs. What lies within another counts once.
        manifest: Of the model.
        part_photos: Photos of a part, which is what is begun anew after a kill.
        min_score: The model's own by default.
        pictures: In which style photos are to be drawn; not at all by default.

    Raises:
        ParameterError: An input is in a kind of store that is not known.
        MissingExtraError: The package for its store is not installed.
    """
    for address in inputs:
        check_address(address)
    return RunSettings(
        inputs=tuple(_each_once(inputs)),
        model=manifest.name,
        model_version=manifest.version,
        model_sha256=hashlib.sha256(manifest.to_json().encode()).hexdigest(),
        min_score=manifest.postprocess.min_score if min_score is None else min_score,
        pictures=pictures,
        part_photos=part_photos,
    )


def open_run(
    out: str, settings: RunSettings, *, on_listed: Callable[[int], None] = lambda _: None
) -> Run:
    """Begin a run, or find the one that was begun with the same settings.

    Photos are listed once, when a run begins. One that goes on keeps to that list.

    Args:
        out: A path or a URL.
        settings: What is asked for.
        on_listed: Called with the number of photos that a listing has come upon, now and then.

    Raises:
        ImageMissingError: There are no photos, or a folder cannot be read.
        DownloadError: The photos' store cannot be reached.
        OutputError: ``out`` cannot be used, lies within an input or around it, or holds files of
            which no run tells.
        ParameterError: It holds a run with other settings.
    """
    check_address(out)
    folder = Folder(out)
    _check_apart(folder, settings.inputs)
    if folder.exists(_RECORD):
        return _resume(folder, settings)
    if folder.names("photos") or folder.names("instances"):
        raise OutputError(
            f"{folder} holds tables, but no {_RECORD} that would tell what they are of.",
            hint="Choose another folder with --out.",
        )
    listed = _Listing(settings, on_listed)
    folder.write(_INPUTS, listed.to_parquet())
    if not listed.photos:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        where = ", ".join(settings.inputs)
        raise ImageMissingError(f"There is nothing to read ({kinds}) in {where}.")
    record = _Record(**settings.model_dump(), photos=listed.photos, left_out=listed.left_out)
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    folder.write(_RECORD, text.encode("utf-8", "surrogateescape"))
    return Run(folder, settings, listed.photos, listed.left_out)


def _resume(folder: Folder, settings: RunSettings) -> Run:
    with folder.open(_RECORD) as file:
        text = file.read().decode("utf-8", "surrogateescape")
    try:
        record = _Record.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise OutputError(
            f"{folder}/{_RECORD} is not one of a run of this maskserve: {error}",
            hint="Choose another folder with --out.",
        ) from None
    there, here = record.model_dump(), settings.model_dump()
    differ = [
        name if name == "inputs" else f"{name} ({there[name]}, now {here[name]})"
        for name in here
        if there[name] != here[name]
    ]
    if differ:
        raise ParameterError(
            f"{folder} holds a run with other settings: {', '.join(differ)}.",
            hint="Repeat the command as it was to go on, or choose another folder with --out.",
        )
    return Run(folder, settings, record.photos, record.left_out)


class _Listing:
    """The photos of a run, as the content of ``inputs.parquet``: compressed as they come."""

    def __init__(self, settings: RunSettings, on_listed: Callable[[int], None]) -> None:
        self.photos = 0
        self.left_out = 0
        self._sink = pa.BufferOutputStream()
        with pq.ParquetWriter(self._sink, _INPUTS_SCHEMA, compression="zstd") as writer:
            for rows in _chunks(self._found(settings.inputs), settings.part_photos):
                addresses, sizes = zip(*rows, strict=True)
                writer.write_table(
                    pa.table([list(map(os.fsencode, addresses)), sizes], schema=_INPUTS_SCHEMA),
                    row_group_size=settings.part_photos,
                )
                self.photos += len(rows)
                on_listed(self.photos)

    def to_parquet(self) -> memoryview:
        return memoryview(self._sink.getvalue())

    def _found(self, inputs: Iterable[str]) -> Iterator[tuple[str, int]]:
        for address in inputs:
            for found in list_photos(address, IMAGE_SUFFIXES):
                if found is None:
                    self.left_out += 1
                else:
                    yield found


def _chunks(photos: Iterator[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    chunk: list[tuple[str, int]] = []
    for photo in photos:
        chunk.append(photo)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _each_once(inputs: Sequence[str]) -> Iterator[str]:
    """Absolute addresses in their order, without those that are given twice or lie in another."""
    real = {_real(address): absolute(address) for address in reversed(inputs)}
    for place in reversed(real):
        if not any(parent in real for parent in _parents(place)):
            yield real[place]


def _check_apart(out: Folder, inputs: Sequence[str]) -> None:
    """A folder of tables within a folder of photos, or around it, would mix the two."""
    place = _real(out.address)
    for address in inputs:
        other = _real(address)
        if place == other or other in _parents(place) or place in _parents(other):
            raise OutputError(
                f"{out} lies within the input {address}, or around it.",
                hint="Choose a folder beside the photos with --out.",
            )


def _real(address: str) -> str:
    return absolute(address) if is_url(address) else os.path.realpath(address)


def _parents(place: str) -> Iterator[str]:
    """The folders around a place, nearest first; of a URL up to the bucket."""
    while (parent := place.rpartition("/")[0]) and not parent.endswith(":/"):
        yield parent
        place = parent


def _file_name(part: int) -> str:
    return f"part-{part:05}.parquet"


def _to_parquet(rows: Sequence[Row], schema: pa.Schema) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), sink, compression="zstd")
    return memoryview(sink.getvalue())
