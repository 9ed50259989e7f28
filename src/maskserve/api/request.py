"""The request as this server needs it: in memory only, with a deadline and a live client."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import IO, Any

import flask
from werkzeug.exceptions import ClientDisconnected

__all__ = ["ARRIVED", "PROGRESS", "Request"]

ARRIVED = "maskserve.arrived_s"
"""Key of the WSGI environment: when the request's first bytes came, by ``time.monotonic``.

Where the server does not tell, a request arrives when the app is called.
"""

PROGRESS = "maskserve.progress"
"""Key of the WSGI environment: a function to call when a part of a large body came or went.

Each part may then take as long as other requests may take as a whole.
"""

_SOCKET = "gunicorn.socket"


class Request(flask.Request):
    """A Flask request that writes no temporary files."""

    def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(environ, *args, **kwargs)
        self.arrived_s: float = environ.get(ARRIVED, time.monotonic())

    def in_parts(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Parts of a large body as they come or go, which need not all arrive in a deadline."""
        progress = self.environ.get(PROGRESS, lambda: None)
        for part in parts:
            yield part
            progress()

    def require_client(self) -> None:
        """Check that there is still somebody to answer.

        A client that has sent its request and closed its side of the connection counts as gone.

        Raises:
            ClientDisconnected: There is not.
        """
        connection: socket.socket | None = self.environ.get(_SOCKET)
        if connection is None or not select.select([connection], [], [], 0)[0]:
            return
        if connection.recv(1, socket.MSG_PEEK) == b"":
            raise ClientDisconnected("The client left while its photo waited.")

    def _get_file_stream(self, *_args: Any, **_kwargs: Any) -> IO[bytes]:
        """Parts of a form stay in memory, which the limit on the body bounds."""
        return BytesIO()
