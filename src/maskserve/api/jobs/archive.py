"""ZIP files of strangers: looked through, and read member by member without unpacking them.

Nothing is ever written under a name from a ZIP, so none can lead out of a folder.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from maskserve.core.errors import ArchiveError, ImageDecodeError, JobTooLargeError

__all__ = ["list_photos", "opened", "read_photo"]

# The record at the end of a ZIP, and the one before it in a ZIP64 (APPNOTE 4.3.15, 4.3.16).
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\5\6"
_ZIP64_LOCATOR_SIGNATURE = b"PK\6\7"
_ZIP64_LOCATOR_BYTES = 20
_LONGEST_COMMENT = 2**16

_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others of Python's may unpack any amount at a time into memory."""

_MOST_RATIO = 100
_FREE_BYTES = 2**20
_DIRECTORY_BYTES_EACH = 256
_JUNK = frozenset({".ds_store", "desktop.ini", "thumbs.db"})


def list_photos(path: Path, *, max_photos: int, max_bytes: int) -> list[ZipInfo]:
    """The members of a ZIP that are worth a look, in its order.

    Folders and what macOS and Windows leave in every folder do not count.

    Args:
        path: The file.
        max_photos: Members at most.
        max_bytes: Of all of them, unpacked.

    Raises:
        ArchiveError: It is damaged, encrypted, or made to overwhelm.
        JobTooLargeError: Too many members, or too large ones.
    """
    _check_directory(path, most=max_photos * _DIRECTORY_BYTES_EACH + _FREE_BYTES)
    with opened(path) as archive:
        members = [info for info in archive.infolist() if not _is_junk(info)]
    if len(members) > max_photos:
        raise JobTooLargeError(
            f"The ZIP has {len(members)} files; a job may have {max_photos} photos.",
            hint="Send several jobs.",
        )
    if any(info.flag_bits & _ENCRYPTED for info in members):
        raise ArchiveError("The ZIP is encrypted.", hint="Pack it without a password.")
    unpacked = sum(info.file_size for info in members)
    if unpacked > max_bytes:
        raise JobTooLargeError(
            f"The photos in the ZIP have {unpacked / 2**20:.0f} MiB together; a job may have "
            f"{max_bytes / 2**20:.0f} MiB.",
            hint="Send several jobs.",
        )
    if unpacked > _MOST_RATIO * path.stat().st_size + _FREE_BYTES:
        raise ArchiveError(
            f"The ZIP unpacks to more than {_MOST_RATIO} times its size, as no photos do."
        )
    return members


def read_photo(archive: ZipFile, info: ZipInfo, *, max_bytes: int) -> bytes:
    """The content of a member; of one that is too large, one byte more than allowed.

    Raises:
        ImageDecodeError: It is damaged.
    """
    if info.compress_type not in _METHODS:
        raise ImageDecodeError(
            "It is packed by a method that is not supported.", hint="Pack the ZIP with “deflate”."
        )
    # zipfile raises BadZipFile, zlib.error, EOFError, OSError, struct.error, RuntimeError …
    try:
        with archive.open(info) as member:
            return member.read(max_bytes + 1)
    except Exception as error:
        raise ImageDecodeError(f"It cannot be unpacked: {error}.") from error


@contextmanager
def opened(path: Path) -> Iterator[ZipFile]:
    """A ZIP that :func:`list_photos` has found to be sound, or is about to.

    Raises:
        ArchiveError: It is damaged.
    """
    try:
        archive = ZipFile(path)
    except Exception as error:
        raise _damaged() from error
    with archive:
        yield archive


def _check_directory(path: Path, *, most: int) -> None:
    """Check how large the list of members is, which zipfile reads as a whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _LONGEST_COMMENT - _END.size - _ZIP64_LOCATOR_BYTES))
        tail = file.read()
    end = tail.rfind(_END_SIGNATURE)
    if end < 0 or len(tail) - end < _END.size:
        raise _damaged()
    directory_bytes = _END.unpack_from(tail, end)[5]
    has_zip64 = tail.startswith(_ZIP64_LOCATOR_SIGNATURE, max(0, end - _ZIP64_LOCATOR_BYTES))
    if has_zip64 or directory_bytes > most:
        raise JobTooLargeError(
            "The ZIP holds more files than a job may have photos.", hint="Send several jobs."
        )


def _is_junk(info: ZipInfo) -> bool:
    *folders, name = info.filename.split("/")
    return (
        not name  # a folder
        or "__MACOSX" in folders
        or name.startswith("._")
        or name.lower() in _JUNK
    )


def _damaged() -> ArchiveError:
    return ArchiveError(
        "The ZIP is damaged or incomplete.", hint="Does it open on your computer? Send it again."
    )
