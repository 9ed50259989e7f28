"""The client, against the real app and against servers that behave badly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import urllib3
from werkzeug.serving import make_server

from api_fakes import make_registry
from maskserve.api import ServerSettings, create_app
from maskserve.client import Client
from maskserve.core.errors import (
    DeadlineError,
    ImageDecodeError,
    ImageMissingError,
    ImageTypeError,
    MaskserveError,
    ParameterError,
    ServerFullError,
    ServerUnreachableError,
    UnknownClassError,
    UnknownModelError,
)
from maskserve.core.predictor import Image
from maskserve.runtime.image_io import decode_image, encode_image

KEY = "a-key-of-some-length"
POLL_S = 0.02
"""How often a server of these tests looks whether it should stop."""

Script = Callable[..., str]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with two models that asks for a key."""
    app = create_app(
        ServerSettings.model_validate({"api_keys": [KEY]}), make_registry("balloon", "second")
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(f"{url}/", api_key=KEY) as client:
        yield client


@pytest.fixture
def script() -> Iterator[Script]:
    """Make a server that gives these answers, one a request: status, body, headers."""
    servers = []

    def start(*answers: tuple[int, Any, dict[str, str]]) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body, headers = left.pop(0)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def photo() -> Image:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8)


def problem(code: str, status: int) -> dict[str, Any]:
    return {"code": code, "detail": f"It is {code}.", "status": status}


def test_answers_like_a_local_model(client: Client, photo: Image) -> None:
    local = make_registry().get("balloon").predict(photo)
    remote = client.segment(photo)
    assert remote.image_size == local.image_size
    assert remote.class_names == local.class_names
    assert np.array_equal(remote.masks, local.masks)
    assert np.array_equal(remote.class_indices, local.class_indices)
    assert remote.boxes_xyxy == pytest.approx(local.boxes_xyxy, abs=0.02)
    assert remote.scores == pytest.approx(local.scores, abs=1e-4)
    assert remote.coverage() == local.coverage()


def test_photo_as_pixels_bytes_and_file(client: Client, photo: Image, tmp_path: Path) -> None:
    data = encode_image(photo, "image/png")
    file = tmp_path / "photo.png"
    file.write_bytes(data)
    first, *others = (client.segment(given) for given in (photo, data, file, str(file)))
    for other in others:
        assert np.array_equal(other.masks, first.masks)


def test_parameters(client: Client, photo: Image) -> None:
    assert len(client.segment(photo, min_score=0)) == 3
    assert client.segment(photo, min_score=0, classes=["kite"]).class_indices.tolist() == [1]
    assert len(client.segment(photo, model="second", max_instances=1)) == 1
    nothing = client.segment(photo, min_score=1)
    assert nothing.boxes_xyxy.shape == (0, 4)
    assert nothing.masks.shape == (0, 48, 64)


def test_drawn_photo(client: Client, photo: Image) -> None:
    drawn = client.draw(photo, style="mask", media_type="image/png", model="second", min_score=0.9)
    covered = decode_image(drawn)[..., 0] == 255
    assert np.array_equal(covered, client.segment(photo, min_score=0.9).masks[0])
    assert client.draw(photo).startswith(b"\xff\xd8\xff")


def test_models_and_readiness(client: Client, url: str) -> None:
    first, second = client.models()
    assert (first.name, first.is_default, first.classes) == ("balloon", True, ("balloon", "kite"))
    assert (second.name, second.is_default, second.version) == ("second", False, "1.0.0")
    assert client.ready()


@pytest.mark.parametrize(
    ("given", "options", "kind", "words"),
    [
        (b"", {}, ImageMissingError, "empty"),
        (b"hello", {}, ImageDecodeError, "not an image"),
        (b"GIF89a", {}, ImageTypeError, "GIF"),
        (None, {"model": "none such"}, UnknownModelError, "There is no model"),
        (None, {"classes": ["ballon"]}, UnknownClassError, "Did you mean “balloon”"),
        (None, {"min_score": 2}, ParameterError, "less than or equal to 1"),
        (Path("gone.jpg"), {}, ImageMissingError, "gone.jpg cannot be read"),
    ],
)
def test_errors_are_those_of_the_server(
    client: Client,
    photo: Image,
    given: Any,
    options: dict[str, Any],
    kind: type[MaskserveError],
    words: str,
) -> None:
    with pytest.raises(kind, match=words) as caught:
        client.segment(photo if given is None else given, **options)
    assert type(caught.value) is kind


def test_without_the_key(url: str, photo: Image) -> None:
    with Client(url) as stranger, pytest.raises(MaskserveError, match="asks for an API key"):
        stranger.segment(photo)


def test_full_server_is_asked_again_when_it_says(
    script: Script, photo: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=time.time)
    monkeypatch.setattr(urllib3.util.retry, "time", clock)
    full = problem("server_full", 503)
    answer = {
        "image": {"height": 48, "width": 64},
        "coverage": {"per_class": {"balloon": {}}},
        "instances": [],
    }
    url = script(
        (503, full, {"Retry-After": "2"}),
        (503, full, {"Retry-After": "99999"}),  # no more than half a minute
        (200, answer, {}),
    )
    with Client(url) as client:
        assert client.segment(photo).class_names == ("balloon",)
    assert waits == [2, 30]


def test_full_server_is_told_after_the_last_try(script: Script, photo: Image) -> None:
    full = (503, problem("server_full", 503), {"Retry-After": "0"})
    with Client(script(full, full), retries=1) as client, pytest.raises(ServerFullError):
        client.segment(photo)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (504, problem("deadline_passed", 504), DeadlineError),
        (418, problem("from_the_future", 418), MaskserveError),
        (200, b"<html>", ServerUnreachableError),
        (200, {"instances": 1}, ServerUnreachableError),
        (404, b"<html>", ServerUnreachableError),
        (502, [], ServerUnreachableError),
        (302, b"", ServerUnreachableError),
    ],
)
def test_other_answers_are_not_repeated(
    script: Script, photo: Image, status: int, body: Any, kind: type[MaskserveError]
) -> None:
    url = script((status, body, {"Location": "/"}))
    with Client(url) as client, pytest.raises(kind) as caught:
        client.segment(photo)
    assert type(caught.value) is kind


def test_nobody_answers(photo: Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=0) as client:
        assert not client.ready()
        with pytest.raises(ServerUnreachableError, match="Does maskserve run there"):
            client.segment(photo)


def test_answer_does_not_come(photo: Image) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2) as client,
        pytest.raises(ServerUnreachableError, match="timed out"),
    ):
        client.segment(photo)


def test_address_that_is_none() -> None:
    with pytest.raises(ParameterError, match="is not the address of a server"):
        Client("127.0.0.1:8080")
