"""A server that clients of other people can talk to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from api_fakes import make_client, make_registry
from maskserve.api import ServerSettings, create_app

Serve = Callable[..., str]


@pytest.fixture(scope="module")
def client() -> Iterator[FlaskClient]:
    """As elsewhere, but one for all tests of a module."""
    registry = make_registry("balloon", "second")
    with make_client(registry, max_bytes=200_000, max_pixels=1_000_000) as client:
        yield client


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve with these settings; gives HOST:PORT."""
    servers = []

    def start(**settings: Any) -> str:
        app = create_app(
            ServerSettings.model_validate(settings), make_registry("balloon", "second")
        )
        server = make_server("127.0.0.1", 0, app, threaded=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"127.0.0.1:{server.port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
