"""Folders and photos on this machine or in object storage, by the same calls.

An address is a path, or a URL such as ``s3://bucket/prefix``. The only module that imports fsspec
and knows how stores fail.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from maskserve.core.errors import (
    DownloadError,
    ImageMissingError,
    ImageTooLargeError,
    MaskserveError,
    MissingExtraError,
    OutputError,
    ParameterError,
)
from maskserve.runtime.files import replacing

__all__ = ["Folder", "absolute", "check_address", "is_url", "list_photos", "read_photo"]

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""What each kind of store needs; the extra of maskserve that brings it has the store's name."""

_MISSING = (FileNotFoundError, PermissionError, IsADirectoryError)
"""What concerns one photo; other failures of a store would be those of the next photo, too."""


def is_url(address: str) -> bool:
    """Whether an address is not a path on this machine."""
    return "://" in address


def absolute(address: str) -> str:
    """The address as it means the same on every machine that has the same disks."""
    return address.rstrip("/") if is_url(address) else os.path.abspath(address)  # noqa: PTH100 -- bytes that are no text stay as they are


def check_address(address: str) -> None:
    """Refuse a store that cannot be used.

    Raises:
        ParameterError: It is of a kind that is not known.
        MissingExtraError: Its package is not installed.
    """
    if is_url(address):
        _store(address)


def list_photos(address: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int] | None]:
    """Find photos without holding more names than those directly in one folder, or of one page.

    Args:
        address: A photo, whatever it is called, or a folder, whose folders are looked into as
            well; links to folders are not followed. Of a store, an object or all below a prefix.
        suffixes: Of the files in folders that count, in lower case with the dot.

    Yields:
        Address and bytes of each photo, in an order that depends on the names only; None for each
        other file in a folder.

    Raises:
        ImageMissingError: There is no such path, or a folder on this machine cannot be read.
        DownloadError: The store cannot be reached, or has no such bucket.
    """
    if not is_url(address):
        if not os.path.lexists(address):
            raise ImageMissingError(f"There is no {address}.", hint="Check the path.")
        yield from _list_local(address, suffixes)
        return
    scheme, path = _split(address)
    fs = _store(address)
    with _reading(address):
        size = _size_of_object(fs, path)
        if size is not None:
            yield address, size
            return
        found = _list_s3(fs, path) if scheme == "s3" else _list_any(fs, path)
        for name, size in found:
            if name.endswith("/"):  # stands for an empty folder
                continue
            yield (f"{scheme}://{name}", size) if _suffix(name) in suffixes else None


def read_photo(address: str, size: int, *, max_bytes: int) -> bytes:
    """The content of a photo.

    Args:
        address: As :func:`list_photos` gives it.
        size: Its bytes, as listed.
        max_bytes: The most that is read.

    Raises:
        ImageMissingError: It is not there any more, or may not be read.
        ImageTooLargeError: It has more bytes than ``max_bytes``.
        DownloadError: Its store cannot be reached.
    """
    if size > max_bytes:
        raise ImageTooLargeError(
            f"The photo has more than {max_bytes / 2**20:.1f} MiB.",
            hint="Scale it down, or save it as JPEG.",
        )
    if not is_url(address):
        try:
            with open(address, "rb") as file:  # noqa: PTH123 -- a path may be no text
                return file.read(max_bytes + 1)
        except OSError as error:
            raise ImageMissingError(f"The photo cannot be read: {error.strerror}.") from error
    fs = _store(address)
    with _reading(address):
        try:
            content: bytes = fs.cat_file(_split(address)[1])
        except _MISSING as error:
            raise ImageMissingError(f"The photo cannot be read: {error}.") from error
    return content


class Folder:
    """A folder to write into, of which nobody ever sees half a file.

    Args:
        address: A path or a URL; a folder on this machine is made when something is written.
    """

    def __init__(self, address: str) -> None:
        self.address = absolute(address)

    def __str__(self) -> str:
        return self.address

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name.

        Raises:
            OutputError: The store cannot be reached.
        """
        if not is_url(self.address):
            return self._path(name).is_file()
        with self._using(name):
            return bool(_store(self.address).isfile(self._key(name)))

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none where it does not exist.

        Raises:
            OutputError: The folder or its store cannot be read.
        """
        with self._using(folder):
            try:
                if not is_url(self.address):
                    return sorted(path.name for path in self._path(folder).iterdir())
                # A run that goes on must not see what this process saw before.
                listed = _store(self.address).ls(self._key(folder), detail=False, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(path.rpartition("/")[2] for path in listed)

    def tidy(self, folder: str) -> None:
        """Remove what writers that were killed left on this machine; nobody may write meanwhile.

        Raises:
            OutputError: The folder cannot be read or written.
        """
        if is_url(self.address):
            return
        with self._using(folder):
            for name in self.names(folder):
                if name.startswith("."):
                    self._path(f"{folder}/{name}").unlink(missing_ok=True)

    def open(self, name: str) -> BinaryIO:
        """A file, to read parts of it.

        Raises:
            OutputError: It cannot be read.
        """
        with self._using(name):
            if not is_url(self.address):
                return self._path(name).open("rb")
            file: BinaryIO = _store(self.address).open(
                self._key(name), "rb", block_size=2**20, cache_type="readahead"
            )
            return file

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write a file, in place of one that is there; on this machine, down to the disk.

        Raises:
            OutputError: It cannot be written.
        """
        if not is_url(self.address):
            with replacing(self._path(name)) as temporary, temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return
        with self._using(name):
            _store(self.address).pipe_file(self._key(name), bytes(data))

    def _path(self, name: str) -> Path:
        return Path(self.address, name)

    def _key(self, name: str) -> str:
        return f"{_split(self.address)[1]}/{name}"

    @contextmanager
    def _using(self, name: str) -> Iterator[None]:
        try:
            yield
        except MaskserveError:
            raise
        except Exception as error:  # stores raise what their own packages define
            raise OutputError(
                f"{self.address}/{name} cannot be used: {_reason(error)}.",
                hint="Name a place with --out that you may read and write.",
            ) from error


def _list_local(address: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int] | None]:
    if not os.path.isdir(address):  # noqa: PTH112 -- as in absolute
        yield address, 0  # reading it says what is wrong, should something be
        return
    try:
        names = sorted(os.listdir(address))  # noqa: PTH208 -- names only, of maybe millions
    except OSError as error:
        raise ImageMissingError(f"{address} cannot be read: {error.strerror}.") from error
    for name in names:
        path = os.path.join(address, name)  # noqa: PTH118
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:  # a link to nowhere: reading it says so
            yield (path, 0) if _suffix(name) in suffixes else None
            continue
        if not stat.S_ISDIR(status.st_mode):
            is_photo = _suffix(name) in suffixes and stat.S_ISREG(status.st_mode)
            yield (path, status.st_size) if is_photo else None
        elif not os.path.islink(path):  # noqa: PTH114
            yield from _list_local(path, suffixes)


def _size_of_object(fs: Any, path: str) -> int | None:
    """Bytes of an object; None if it is a prefix."""
    try:
        found = fs.info(path)
    except FileNotFoundError:
        return None
    return None if found["type"] == "directory" else int(found["size"])


def _list_s3(fs: Any, path: str) -> Iterator[tuple[str, int]]:
    """A page at a time: s3fs itself would keep everything, a kilobyte for each name."""
    bucket, _, prefix = path.partition("/")
    page: dict[str, Any] = {}
    while True:
        token = page.get("NextContinuationToken")
        page = fs.call_s3(
            "list_objects_v2",
            Bucket=bucket,
            Prefix=f"{prefix}/" if prefix else "",
            **({"ContinuationToken": token} if token else {}),
        )
        yield from (
            (f"{bucket}/{found['Key']}", found["Size"]) for found in page.get("Contents", ())
        )
        if not page.get("IsTruncated"):
            return


def _list_any(fs: Any, path: str) -> Iterator[tuple[str, int]]:
    """A folder at a time."""
    for folder, _, files in fs.walk(path, detail=True):
        yield from ((f"{folder}/{name}", files[name]["size"]) for name in sorted(files))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 -- a Path for each of millions


def _split(url: str) -> tuple[str, str]:
    scheme, _, path = url.partition("://")
    return scheme, path


def _store(url: str) -> Any:
    """The file system of a URL's kind; fsspec makes it once."""
    scheme = _split(url)[0]
    if scheme not in _PACKAGES:
        kinds = ", ".join(f"{known}://" for known in _PACKAGES)
        raise ParameterError(
            f"{url}: photos and tables cannot lie there.", hint=f"Give a path, or one of {kinds}."
        )
    try:
        return import_module("fsspec").filesystem(scheme)
    except ImportError:
        raise MissingExtraError(
            f"{url} needs {_PACKAGES[scheme]}, which is not installed.",
            hint=f"Install it with: pip install 'maskserve[{scheme}]'",
        ) from None


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except MaskserveError:
        raise
    except Exception as error:  # stores raise what their own packages define
        raise DownloadError(
            f"{url} cannot be read: {_reason(error)}.",
            hint="Check address and credentials. The same command goes on.",
        ) from error


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
