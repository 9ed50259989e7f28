from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from maskserve.batch import storage
from maskserve.batch.storage import Folder, check_address, list_photos, read_photo
from maskserve.core.errors import (
    ImageMissingError,
    ImageTooLargeError,
    MissingExtraError,
    OutputError,
    ParameterError,
)

SUFFIXES = frozenset({".jpg", ".png"})


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """A store of a kind that has no listing of its own here, as gs."""
    monkeypatch.setitem(storage._PACKAGES, "memory", "fsspec")
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


class TestListing:
    def test_folders_of_folders_in_order_of_names(self, tmp_path: Path) -> None:
        for name in ("b/c.JPG", "b/notes.txt", "a.png", "b.jpg", "z/z/z.jpg"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345")
        found = list(list_photos(str(tmp_path), SUFFIXES))
        names = [os.path.relpath(photo[0], tmp_path) if photo else None for photo in found]
        assert names == ["a.png", "b/c.JPG", None, "b.jpg", "z/z/z.jpg"]
        assert {photo[1] for photo in found if photo} == {5}

    def test_a_photo_may_be_called_anything_if_it_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "photo").touch()
        assert list(list_photos(str(tmp_path / "photo"), SUFFIXES)) == [(f"{tmp_path}/photo", 0)]

    def test_a_path_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ImageMissingError, match=r"There is no .*photoz"):
            list(list_photos(str(tmp_path / "photoz"), SUFFIXES))

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
    def test_links_to_photos_count_and_links_to_folders_do_not(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
        os.mkfifo(tmp_path / "pipe.jpg")  # reading it would not end
        found = list(list_photos(str(tmp_path), SUFFIXES))
        assert found == [(f"{tmp_path}/nowhere.jpg", 0), None]

    def test_a_store_without_a_listing_of_its_own(self, memory: fsspec.AbstractFileSystem) -> None:
        for name in ("/roofs/2026/a.jpg", "/roofs/2026/x/b.jpg", "/roofs/2026/x/c.txt"):
            memory.pipe(name, b"12345")
        assert list(list_photos("memory:///roofs/2026", SUFFIXES)) == [
            ("memory:///roofs/2026/a.jpg", 5),
            ("memory:///roofs/2026/x/b.jpg", 5),
            None,
        ]
        assert list(list_photos("memory:///roofs/2026/x/b.jpg", SUFFIXES)) == [
            ("memory:///roofs/2026/x/b.jpg", 5)
        ]
        assert read_photo("memory:///roofs/2026/a.jpg", 5, max_bytes=5) == b"12345"

    def test_a_bucket_is_listed_page_by_page(self) -> None:
        pages: dict[str | None, dict[str, Any]] = {
            None: {"NextContinuationToken": "b", "Contents": [{"Key": "p/a.jpg", "Size": 1}]},
            "b": {"NextContinuationToken": "c"},
            "c": {"Contents": [{"Key": "p/b.jpg", "Size": 2}]},
        }

        class Store:
            def call_s3(self, method: str, **arguments: str) -> dict[str, Any]:
                assert (method, arguments["Bucket"]) == ("list_objects_v2", "bucket")
                assert arguments["Prefix"] == "p/"
                token = arguments.get("ContinuationToken")
                return pages[token] | {"IsTruncated": token != "c"}

        found = list(storage._list_s3(Store(), "bucket/p"))
        assert found == [("bucket/p/a.jpg", 1), ("bucket/p/b.jpg", 2)]


class TestReading:
    def test_what_is_too_large_is_not_read(self, tmp_path: Path) -> None:
        with pytest.raises(ImageTooLargeError):
            read_photo(str(tmp_path / "gone.jpg"), 6, max_bytes=5)

    @pytest.mark.parametrize("name", ["gone.jpg", "."])
    def test_what_cannot_be_read_is_missing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ImageMissingError, match="cannot be read"):
            read_photo(str(tmp_path / name), 0, max_bytes=5)

    @pytest.mark.usefixtures("memory")
    def test_an_object_that_went_is_missing(self) -> None:
        with pytest.raises(ImageMissingError, match="cannot be read"):
            read_photo("memory:///gone.jpg", 5, max_bytes=5)


class TestAddresses:
    def test_only_stores_that_are_known(self) -> None:
        with pytest.raises(ParameterError, match="http://x/y") as caught:
            check_address("http://x/y")
        assert "s3://" in str(caught.value)

    def test_the_extra_of_a_store_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gcsfs", None)
        with pytest.raises(MissingExtraError, match=r"maskserve\[gs\]"):
            check_address("gs://bucket")


class TestFolder:
    def test_what_was_written_is_there(self, tmp_path: Path) -> None:
        folder = Folder(str(tmp_path / "out"))
        assert folder.names("x") == []
        folder.write("x/b", b"1")
        folder.write("x/a", memoryview(b"2"))
        assert folder.names("x") == ["a", "b"]
        assert folder.exists("x/a")
        assert not folder.exists("x")
        with folder.open("x/a") as file:
            assert file.read() == b"2"

    def test_what_killed_writers_left_is_removed(self, tmp_path: Path) -> None:
        folder = Folder(str(tmp_path))
        folder.write("x/a.parquet", b"1")
        folder.write("x/.a-12345678.parquet", b"half of")
        folder.tidy("x")
        folder.tidy("y")
        assert folder.names("x") == ["a.parquet"]

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_bytes(b"in the way")
        folder = Folder(str(tmp_path / "out"))
        with pytest.raises(OutputError):
            folder.write("x", b"1")
        with pytest.raises(OutputError):
            folder.names("x")
