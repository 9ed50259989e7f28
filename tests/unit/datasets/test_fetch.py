from __future__ import annotations

import errno
import io
import stat
import struct
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from maskserve.core.errors import DatasetError, DownloadError, OutputError, ParameterError
from maskserve.datasets import Release, fetch_release, find_release
from maskserve.datasets import fetch as fetch_module

FILES = {"train/a.jpg": b"a" * 5000, "train/list.json": b"{}", "val/b.jpg": bytes(range(256)) * 40}


def zipped(files: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


ARCHIVE = zipped({f"toys/{name}": data for name, data in FILES.items()})


@dataclass
class Site:
    """A server with one file: what it holds, how it behaves, and what it was asked for."""

    url: str = ""
    content: bytes = ARCHIVE
    knows_ranges: bool = True
    says_length: bool = True
    breaks_after: int | None = None
    status: int | None = None
    ranges: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if self.status is not None:
            request.send_error(self.status)
            return
        start = 0
        if asked and self.knows_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        body = self.content[start:]
        if start:
            end = len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if self.says_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.breaks_after])


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/toys.zip"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def release(site: Site, *, max_bytes: int = 1_000_000) -> Release:
    digests = {name: sha256(data).hexdigest() for name, data in FILES.items()}
    return Release(site.url, "toys", max_bytes, digests)


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_release_arrives_whole(site: Site, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    out = tmp_path / "new" / "toys"
    fetch_release(release(site), out, on_progress=lambda *step: steps.append(step))
    assert content_of(tmp_path) == {f"new/toys/{name}": data for name, data in FILES.items()}
    assert steps[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert site.ranges == [None]


def test_length_may_be_unknown(site: Site, tmp_path: Path) -> None:
    site.says_length = False
    fetch_release(release(site), tmp_path / "toys")
    assert content_of(tmp_path / "toys") == FILES


def test_broken_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.breaks_after = 100
    with pytest.raises(DownloadError, match=r"connection broke.*Run it again"):
        fetch_release(release(site), tmp_path / "toys")
    assert content_of(tmp_path) == {"toys.zip.part": ARCHIVE[:100]}
    site.breaks_after = None
    fetch_release(release(site), tmp_path / "toys")
    assert site.ranges == [None, "bytes=100-"]
    assert content_of(tmp_path) == {f"toys/{name}": data for name, data in FILES.items()}


def test_server_without_ranges_begins_anew(site: Site, tmp_path: Path) -> None:
    site.knows_ranges = False
    (tmp_path / "toys.zip.part").write_bytes(ARCHIVE[:100])
    fetch_release(release(site), tmp_path / "toys")
    assert content_of(tmp_path / "toys") == FILES


def test_complete_part_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "toys.zip.part").write_bytes(ARCHIVE)
    steps: list[object] = []
    fetch_release(release(site), tmp_path / "toys", on_progress=lambda *step: steps.append(step))
    assert steps == []
    assert content_of(tmp_path / "toys") == FILES


def test_part_that_is_too_long_is_downloaded_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "toys.zip.part").write_bytes(ARCHIVE + b"more")
    fetch_release(release(site), tmp_path / "toys")
    assert site.ranges == [f"bytes={len(ARCHIVE) + 4}-", None]
    assert content_of(tmp_path / "toys") == FILES


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (503, "503 Service")])
def test_server_that_refuses(site: Site, tmp_path: Path, status: int, words: str) -> None:
    site.status = status
    with pytest.raises(DownloadError, match=words):
        fetch_release(release(site), tmp_path / "toys")
    assert content_of(tmp_path) == {}


def test_no_connection(tmp_path: Path) -> None:
    nowhere = Site(url="http://127.0.0.1:9/toys.zip")
    with pytest.raises(DownloadError, match=r"cannot be reached: .*refused.*HTTPS_PROXY"):
        fetch_release(release(nowhere), tmp_path / "toys")


def test_all_files_that_differ_are_listed_and_nothing_is_left(site: Site, tmp_path: Path) -> None:
    site.content = zipped({"toys/train/a.jpg": b"else", "toys/train/list.json": b"{}"})
    with pytest.raises(DatasetError, match="is not the release") as caught:
        fetch_release(release(site), tmp_path / "toys")
    assert [str(problem) for problem in caught.value.problems] == [
        "train/a.jpg: is not the file that was published",
        "val/b.jpg: is missing",
    ]
    assert content_of(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", ARCHIVE[:-40]])
def test_what_is_no_archive(site: Site, tmp_path: Path, content: bytes) -> None:
    site.content = content
    with pytest.raises(DatasetError, match=r"toys.zip: File is not a zip file"):
        fetch_release(release(site), tmp_path / "toys")
    assert content_of(tmp_path) == {}


def test_damaged_file_in_the_archive(site: Site, tmp_path: Path) -> None:
    damaged = bytearray(ARCHIVE)
    damaged[60:70] = bytes(10)
    site.content = bytes(damaged)
    with pytest.raises(DatasetError, match="is not the release"):
        fetch_release(release(site), tmp_path / "toys")


def test_nothing_else_of_the_archive_is_unpacked(site: Site, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("toys/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../outside.txt", "!")
        archive.writestr("toys/../../outside.txt", "!")
        archive.writestr("/outside.txt", "!")
        archive.writestr("__MACOSX/toys/train/._a.jpg", "!")
        archive.writestr(link, "/etc/passwd")
    site.content = buffer.getvalue()
    fetch_release(release(site), tmp_path / "data" / "toys")
    assert content_of(tmp_path) == {f"data/toys/{name}": data for name, data in FILES.items()}


def test_link_in_the_place_of_a_file_is_refused(site: Site, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("toys/train/a.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    site.content = buffer.getvalue()
    with pytest.raises(DatasetError, match=r"train/a.jpg: is not the file"):
        fetch_release(release(site), tmp_path / "toys")
    assert not (tmp_path / "toys").exists()


def test_archive_that_is_too_large(site: Site, tmp_path: Path) -> None:
    site.content = bytes(3000)
    with pytest.raises(DownloadError, match="larger than 0 MB"):
        fetch_release(release(site, max_bytes=2000), tmp_path / "toys")
    site.says_length = False
    with pytest.raises(DownloadError, match="larger than 0 MB"):
        fetch_release(release(site, max_bytes=2000), tmp_path / "toys")


def test_bomb_that_says_what_it_is(site: Site, tmp_path: Path) -> None:
    site.content = zipped({"toys/train/a.jpg": bytes(10_000_000)})
    with pytest.raises(DatasetError, match="unpacks to too many bytes"):
        fetch_release(release(site), tmp_path / "toys")


def test_bomb_that_lies_is_cut_off(site: Site, tmp_path: Path) -> None:
    content = bytearray(zipped({"toys/train/a.jpg": bytes(10_000_000)}))
    directory = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, directory + 24, 100)  # the size when unpacked
    site.content = bytes(content)
    with pytest.raises(DatasetError, match="is not the release"):
        fetch_release(release(site), tmp_path / "toys")


def test_folder_with_content_is_refused_before_the_download(site: Site, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("!")
    with pytest.raises(OutputError, match="not empty"):
        fetch_release(release(site), tmp_path)
    assert site.ranges == []


def test_full_disk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch_module, "_unpack", full)
    with pytest.raises(OutputError, match="No space left on device"):
        fetch_release(release(site), tmp_path / "toys")
    assert content_of(tmp_path) == {"toys.zip.part": ARCHIVE}  # to go on from


def test_unknown_release() -> None:
    with pytest.raises(ParameterError, match=r"no release “ballon”.*balloon"):
        find_release("ballon")


def test_listed_files_are_those_of_the_real_data_set(shared_data: Path) -> None:
    found = content_of(shared_data / "balloon")
    digests = {name: sha256(data).hexdigest() for name, data in found.items()}
    assert find_release("balloon").digests == digests


def test_real_data_set_survives_the_way(
    site: Site, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = content_of(shared_data / "balloon")
    site.content = zipped(
        {f"balloon/{name}": data for name, data in files.items()}, compression=zipfile.ZIP_STORED
    )
    monkeypatch.setattr(
        fetch_module, "_RELEASES", {"balloon": (site.url, fetch_module._RELEASES["balloon"][1])}
    )
    fetch_release(find_release("balloon"), tmp_path / "balloon")
    assert content_of(tmp_path / "balloon") == files
