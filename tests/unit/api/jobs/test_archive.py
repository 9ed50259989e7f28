"""ZIP files of strangers."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from maskserve.api.jobs.archive import list_photos, opened, read_photo
from maskserve.core.errors import ArchiveError, ImageDecodeError, JobError, JobTooLargeError

JPEG = b"\xff\xd8\xff" + bytes(range(256)) * 4


def write_zip(
    path: Path, names: Iterable[str], *, content: bytes = JPEG, method: int = ZIP_STORED
) -> Path:
    with ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def names_of(path: Path, *, max_photos: int = 100, max_bytes: int = 10**6) -> list[str]:
    return [i.filename for i in list_photos(path, max_photos=max_photos, max_bytes=max_bytes)]


def read_all(path: Path, *, max_bytes: int = 10**6) -> list[bytes]:
    members = list_photos(path, max_photos=100, max_bytes=10**6)
    with opened(path) as archive:
        return [read_photo(archive, info, max_bytes=max_bytes) for info in members]


def test_folders_are_part_of_names_and_junk_is_left_out(tmp_path: Path) -> None:
    junk = [
        "party/",
        "party/.DS_Store",
        "party/Thumbs.db",
        "desktop.ini",
        "__MACOSX/party/a.jpg",
        "party/._a.jpg",
    ]
    photos = ["z.jpg", "party/a.jpg", "party/deep/ü.png", "../../etc/passwd", "/root.webp"]
    path = write_zip(tmp_path / "a.zip", [*junk, *photos])
    assert names_of(path) == photos
    assert read_all(path) == [JPEG] * 5
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED])
def test_a_photo_that_is_too_large_is_cut_behind_the_limit(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"], method=method)
    assert read_all(path, max_bytes=99) == [JPEG[:100]]


def test_methods_that_unpack_without_bounds_are_not_used(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"], method=ZIP_BZIP2)
    with pytest.raises(ImageDecodeError, match="method"):
        read_all(path)


def test_a_member_that_is_damaged(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"])
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ImageDecodeError, match="Bad CRC-32"):
        read_all(path)


def test_too_many_photos(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [f"{i}.jpg" for i in range(11)])
    assert len(names_of(path, max_photos=11)) == 11
    with pytest.raises(JobTooLargeError, match="has 11 files"):
        names_of(path, max_photos=10)


def test_too_many_bytes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg", "b.jpg"])
    assert names_of(path, max_bytes=2 * len(JPEG))
    with pytest.raises(JobTooLargeError, match="MiB"):
        names_of(path, max_bytes=2 * len(JPEG) - 1)


def test_a_bomb(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", "abcd", content=bytes(10**6), method=ZIP_DEFLATED)
    with pytest.raises(ArchiveError, match="100 times its size"):
        names_of(path, max_bytes=10**9)


def test_an_encrypted_one(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"])
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="encrypted"):
        names_of(path)


def test_a_list_of_members_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by its size, which stands at the end, before anything parses it."""
    monkeypatch.setattr(zipfile, "ZipFile", None)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 2**31, 0, 0)
    (tmp_path / "a.zip").write_bytes(bytes(1000) + end)
    with pytest.raises(JobTooLargeError, match="more files"):
        names_of(tmp_path / "a.zip")


def test_a_zip64_is_taken_for_too_large(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"])
    content = path.read_bytes()
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    path.write_bytes(content[:-22] + locator + content[-22:])
    with pytest.raises(JobTooLargeError, match="more files"):
        names_of(tmp_path / "a.zip")


def test_a_comment_at_the_end_is_fine(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"])
    with ZipFile(path, "a") as archive:
        archive.comment = b"from the party" * 1000
    assert names_of(path) == ["a.jpg"]


@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_part_of_one(tmp_path: Path, keep: int) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.jpg"])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArchiveError, match="damaged or incomplete"):
        names_of(path)


@given(
    changes=st.lists(st.tuples(st.integers(0, 1300), st.integers(0, 255)), min_size=1, max_size=8)
)
@example(changes=[(1100, 0)])
def test_changed_bytes_are_no_crash(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("zips") / "a.zip"
    write_zip(path, ["a.jpg", "b/ü.jpg"], content=JPEG[:400], method=ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    try:
        for data in read_all(path, max_bytes=1000):
            assert len(data) <= 1001
    except (JobError, ImageDecodeError):
        pass
