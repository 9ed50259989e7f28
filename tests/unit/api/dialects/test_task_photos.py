"""Tasks name photos; where these may come from is for the settings to say."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from maskserve.api import ServerSettings
from maskserve.api.dialects import task_photos
from maskserve.api.dialects.task_photos import TaskPhotos
from maskserve.core.errors import (
    ImageMissingError,
    ImageTooLargeError,
    ImageTypeError,
    MaskserveError,
    ParameterError,
    ServerUnreachableError,
)

PHOTO = b"\xff\xd8\xff and so on"
TOKEN = SecretStr("0123456789abcdef")
JWT = SecretStr("head.body.sign")


class LabelStudio(BaseHTTPRequestHandler):
    """What answers as Label Studio does; each request is kept in ``seen``."""

    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        match self.path:
            case "/data/upload/1/a.jpg" | "/data/local-files/?d=pets/b%20c.jpg":
                self._answer(200, PHOTO)
            case "/data/upload/1/large.jpg":
                self._answer(200, PHOTO * 99)
            case "/data/upload/1/moved.jpg":
                self._answer(302, b"", Location="http://127.0.0.1:9/secret.jpg")
            case "/data/upload/1/slow.jpg":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    for _ in range(1000):
                        self.wfile.write(b"x")
                        time.sleep(0.02)
            case _:
                self._answer(404, b"")

    def do_POST(self) -> None:
        self.seen.append((self.path, None))
        self._answer(200, b'{"access": "fresh"}')

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def label_studio() -> Iterator[str]:
    LabelStudio.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), LabelStudio)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def folders(tmp_path: Path) -> TaskPhotos:
    upload = tmp_path / "data" / "media" / "upload"
    for path in (upload / "1" / "a.jpg", tmp_path / "files" / "pets" / "b c.jpg"):
        path.parent.mkdir(parents=True)
        path.write_bytes(PHOTO)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (upload / "1" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (upload / "1" / "large.jpg").write_bytes(PHOTO * 99)
    (upload / "1" / "notes.txt").write_bytes(b"secret")
    (upload / "1" / "folder.jpg").mkdir()
    return TaskPhotos(
        ServerSettings(
            label_studio_data_dir=tmp_path / "data",
            label_studio_local_files=tmp_path / "files",
            max_bytes=100,
        )
    )


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/1/a.jpg",
        "/upload/1/a.jpg",
        "upload/1/a.jpg",
        "/data/local-files/?d=pets/b%20c.jpg",
        "/data/local-files?d=pets%2Fb%20c.jpg",
        "http://any.example.org:8080/data/local-files/?d=pets/b%20c.jpg",
        "data:image/jpeg;base64," + base64.b64encode(PHOTO).decode(),
    ],
)
def test_photos_of_folders_and_of_the_task_itself(folders: TaskPhotos, reference: str) -> None:
    assert folders.read(reference) == PHOTO


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        (None, ImageMissingError, "has no photo"),
        ("", ImageMissingError, "has no photo"),
        (7, ImageMissingError, "has no photo"),
        ("/data/upload/1/gone.jpg", ImageMissingError, "is not there"),
        ("/data/upload/1/folder.jpg", ImageMissingError, "is not there"),
        (f"/data/upload/1/{'a' * 5000}.jpg", ImageMissingError, "is not there"),
        ("/data/upload/1/large.jpg", ImageTooLargeError, "MiB"),
        ("/data/upload/1/notes.txt", ImageTypeError, "By its name"),
        ("/data/upload/../../../secret.jpg", ParameterError, "leads out"),
        ("/data/upload/%2e%2e/%2e%2e/%2e%2e/secret.jpg", ParameterError, "leads out"),
        ("/data/upload/1/link.jpg", ParameterError, "leads out"),
        ("/data/upload/1/a\0.jpg", ParameterError, "leads out"),
        ("/data/upload/", ParameterError, "leads out"),
        ("/data/local-files/?d=../secret.jpg", ParameterError, "leads out"),
        ("/data/local-files/?d=%2E%2E/secret.jpg", ParameterError, "leads out"),
        ("/data/local-files/?x=1", ParameterError, "leads out"),
        ("/data/local-files/?d=/etc/passwd", ImageTypeError, "By its name"),
        ("/etc/passwd", ParameterError, "neither an upload nor a local file"),
        ("file:///etc/passwd", ParameterError, "not fetched from “file://”"),
        ("http://127.0.0.1/a.jpg", ParameterError, "not fetched from “http://”"),
        ("ftp://127.0.0.1/data/upload/1/a.jpg", ParameterError, "not fetched from “ftp://”"),
        ("http://[bad/a.jpg", ParameterError, "not an address"),
        ("s3://bucket/a.jpg", ParameterError, "not fetched from “s3://”"),
        ("data:image/jpeg,abc", ParameterError, "must be in base64"),
        ("data:image/jpeg;base64,%", ParameterError, "not base64"),
    ],
)
def test_everything_else_is_refused(
    folders: TaskPhotos, reference: object, error: type[MaskserveError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        folders.read(reference)
    assert "secret" not in str(caught.value)


def test_nothing_is_looked_for_where_nothing_is_set_up() -> None:
    for reference in ("/data/upload/1/a.jpg", "/data/local-files/?d=a.jpg"):
        with pytest.raises(ImageMissingError, match="Set LABEL_STUDIO_URL"):
            TaskPhotos(ServerSettings()).read(reference)


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/1/a.jpg",
        "http://127.0.0.1:9/data/upload/1/a.jpg",  # that host is not asked
        "/data/local-files/?d=pets/b%20c.jpg",
    ],
)
def test_photos_are_fetched_with_the_key(label_studio: str, reference: str) -> None:
    photos = TaskPhotos(ServerSettings(label_studio_url=label_studio, label_studio_api_key=TOKEN))
    assert photos.read(reference) == PHOTO
    assert [authorization for _, authorization in LabelStudio.seen] == [
        f"Token {TOKEN.get_secret_value()}"
    ]


def test_personal_access_token_is_exchanged_once(label_studio: str) -> None:
    photos = TaskPhotos(ServerSettings(label_studio_url=label_studio, label_studio_api_key=JWT))
    for _ in range(2):
        assert photos.read("/data/upload/1/a.jpg") == PHOTO
    assert LabelStudio.seen == [
        ("/api/token/refresh/", None),
        ("/data/upload/1/a.jpg", "Bearer fresh"),
        ("/data/upload/1/a.jpg", "Bearer fresh"),
    ]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("gone.jpg", ImageMissingError, "does not have"),
        ("large.jpg", ImageTooLargeError, "MiB"),
        ("moved.jpg", ServerUnreachableError, "status 302"),
        ("../../api/token/a.jpg", ParameterError, "leads out"),
    ],
)
def test_fetching_fails_in_words(
    label_studio: str, name: str, error: type[MaskserveError], words: str
) -> None:
    photos = TaskPhotos(
        ServerSettings(label_studio_url=label_studio, label_studio_api_key=TOKEN, max_bytes=100)
    )
    with pytest.raises(error, match=words):
        photos.read(f"/data/upload/1/{name}")
    assert len(LabelStudio.seen) <= 1


def test_what_comes_too_slowly_is_given_up(
    label_studio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_photos, "_FETCH_S", 0.3)
    photos = TaskPhotos(ServerSettings(label_studio_url=label_studio, label_studio_api_key=TOKEN))
    with pytest.raises(ServerUnreachableError, match="did not arrive within"):
        photos.read("/data/upload/1/slow.jpg")


def test_nobody_answers() -> None:
    photos = TaskPhotos(
        ServerSettings(label_studio_url="http://127.0.0.1:9", label_studio_api_key=TOKEN)
    )
    with pytest.raises(ServerUnreachableError, match="Check LABEL_STUDIO_URL") as caught:
        photos.read("/data/upload/1/a.jpg")
    assert TOKEN.get_secret_value() not in str(caught.value)
