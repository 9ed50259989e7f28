"""gunicorn's threaded worker, hardened against clients that are slow or say nothing.

gunicorn hands a connection to a thread as soon as it is made, and the thread then waits for the
client without an end, so that a few dozen silent clients stop the server for everybody. Here

- a connection gets a thread when the head of a request has arrived, not before;
- a request that has not arrived completely when its deadline passes is cut off, and so is a client
  that does not take its answer;
- when all threads are taken, those clients that have kept one waiting for the longest are cut off;
- when there are too many connections, the one that has been idle for the longest is closed.
"""

from __future__ import annotations

import errno
import io
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from threading import Timer
from types import FrameType
from typing import Any

from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker
from werkzeug.exceptions import BadRequest, ClientDisconnected, RequestTimeout

from maskserve.api.request import ARRIVED, PROGRESS
from maskserve.api.services import Services
from maskserve.core.errors import ServerFullError

__all__ = ["Worker"]

_HEAD_END = b"\r\n\r\n"
_MAX_HEAD_BYTES = 64 * 1024
_MAX_SKIPPED_BYTES = 32 * 1024
"""Of a body that the app did not read, so that the connection can go on; gunicorn skips 64 KiB."""
_LINGER_S = 2.0
"""How long a closing connection is read on, so that the client sees the answer and no reset."""
_PATIENCE_S = 1.0
"""How long a client may keep a thread waiting when others wait for a thread."""
_STOP_PATIENCE_S = 5.0
"""The same when the server stops."""

_DROP = struct.pack("ii", 1, 0)

_Environ = dict[str, Any]


class _Connection(TConn):  # type: ignore[misc]
    """A client's connection.

    Attributes:
        arrived_s: When the head of the current request was there, by ``time.monotonic``.
        waiting_since_s: Since when a thread waits for the client, to read from it or to write
            to it; None while it does not.
        too_slow: Set when the client was cut off because its time was up.
        pushed_out: Set when the client was cut off because others wanted its thread.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.arrived_s = 0.0
        self.waiting_since_s: float | None = None
        self.writes = False
        self.too_slow = False
        self.pushed_out = False

    @property
    def cut_off(self) -> bool:
        return self.too_slow or self.pushed_out

    def head_arrived(self) -> bool:
        """Take what the client has sent; whether there is something to do for a thread."""
        self.init()  # makes the parser, and the socket blocking
        self.sock.setblocking(False)
        try:
            data = self.sock.recv(_MAX_HEAD_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the thread will find out, too, and say so
        received = self.parser.unreader.buf
        received.seek(0, io.SEEK_END)
        received.write(data)
        head = received.getvalue()
        return not data or _HEAD_END in head or len(head) >= _MAX_HEAD_BYTES

    def wait_for_client(self, *, writes: bool = False) -> None:
        self.writes = writes
        self.waiting_since_s = time.monotonic()

    def progress(self) -> None:
        """A part of something large came or went, so the client is not slow."""
        if self.waiting_since_s is not None:
            self.waiting_since_s = time.monotonic()

    def work(self) -> None:
        self.waiting_since_s = None

    def cut(self) -> None:
        """Wake the thread that waits for the client: there will be nothing more."""
        with suppress(OSError):
            if self.writes:  # the system must not go on to offer the rest of the answer, either
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
            self.sock.shutdown(socket.SHUT_RDWR if self.writes else socket.SHUT_RD)

    def linger(self) -> None:
        """End the answer and wait until the client has read it, but not for long."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            ends_s = time.monotonic() + _LINGER_S
            while (left_s := ends_s - time.monotonic()) > 0:
                self.sock.settimeout(left_s)
                if not self.sock.recv(_MAX_HEAD_BYTES):
                    break

    def close(self, graceful: bool = False) -> None:  # noqa: ARG002
        """Called by gunicorn in the thread that serves all connections, so it must not wait."""
        super().close()


class _Body:
    """The body of a request, which knows whether the client still has to send some of it."""

    def __init__(self, body: Any, request: Any, connection: _Connection) -> None:
        self._body = body
        self._request = request
        self._connection = connection
        headers = dict(request.headers)
        self._missing = int(headers.get("CONTENT-LENGTH", 0))
        self._chunked = "TRANSFER-ENCODING" in headers
        self._ended = False
        self._answered = False
        if not self._chunked and not self._missing:
            connection.work()

    @property
    def failed(self) -> bool:
        return bool(self._body.failed)

    @property
    def connection(self) -> _Connection:
        return self._connection

    def answer(self) -> None:
        """The app has read what it wanted; what it reads no more, gunicorn skips, if it is short.

        Otherwise the answer announces that the connection ends.
        """
        self._answered = True
        if self._missing > _MAX_SKIPPED_BYTES or (self._chunked and not self._ended):
            self._request.force_close()

    def read(self, size: int | None = None) -> bytes:
        """As gunicorn's.

        Raises:
            RequestTimeout: The client was cut off because its time was up.
            ServerFullError: The client was cut off because others wanted its thread.
            BadRequest: It is damaged, or the client ended it too early.
        """
        try:
            data: bytes = self._body.read(size)
        except ParseException as error:
            raise BadRequest(f"The body's chunks are damaged: {error}.") from error
        except NoMoreData:
            data = b""
        self._missing -= len(data)
        ended = self._ended = size is None or len(data) < size
        if self._answered:
            return data  # to gunicorn, which skips it, also before the next request
        if ended and self._connection.cut_off:
            self._request.force_close()
            if self._connection.too_slow:
                raise RequestTimeout("The request did not arrive in the time that it may take.")
            raise ServerFullError(
                "The request arrived slowly while others were waiting to send theirs.",
                hint="Try again in a moment.",
            )
        if ended and (self._missing > 0 or self.failed):
            raise ClientDisconnected("The body ends too early.")
        if ended or not (self._missing or self._chunked):
            self._connection.work()
        return data


class Worker(ThreadWorker):  # type: ignore[misc]
    """A worker process: one thread for all connections, and some for the requests."""

    # Unlike gunicorn's workers, these do not end at SIGHUP, not even for an instant.
    SIGNALS = tuple(sig for sig in ThreadWorker.SIGNALS if sig != signal.SIGHUP)

    wsgi: Callable[..., Iterable[bytes]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_threads: dict[_Connection, None] = {}  # those that wait for one included

    @property
    def _services(self) -> Services | None:
        """Of the app; None while it is not made yet."""
        app = self.app.callable
        return app.extensions["maskserve"] if app else None

    # --- signals

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, self.handle_hup)
        signal.siginterrupt(signal.SIGHUP, False)

    def handle_hup(self, _sig: int, _frame: FrameType | None) -> None:
        """On SIGHUP: look for changed bundles. An app that is only being made reads them anyway."""
        if services := self._services:
            services.reload_asked.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM: not ready from now on, and no more connections after ``drain_s``."""
        services = self._services
        if services is None:
            super().handle_exit(sig, frame)
            return
        services.draining.set()
        stop = Timer(services.settings.drain_s, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGINT and SIGQUIT: end at once, as far as threads can be woken."""
        for conn in self._in_threads:
            conn.cut()
        super().handle_quit(sig, frame)

    # --- in the thread of all connections

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._close_idle()
                return
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                return
            raise
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._close_idle()
        self._await_head(_Connection(self.cfg, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)

    def on_pending_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        if conn.head_arrived():
            super().on_pending_socket_readable(conn, client)

    def enqueue_req(self, conn: _Connection) -> None:
        conn.arrived_s = time.monotonic()
        self._in_threads[conn] = None
        super().enqueue_req(conn)
        self._cut_slow()

    def finish_request(self, conn: _Connection, fs: Any) -> None:
        del self._in_threads[conn]
        super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Called by gunicorn every second."""
        if not self.alive:
            soon_s = time.monotonic() + _LINGER_S
            for conn in self.pending_conns:
                conn.timeout = min(conn.timeout, soon_s)
        super().murder_pending()
        self._cut_slow()

    def _await_head(self, conn: _Connection) -> None:
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

    def _close_idle(self) -> None:
        """Close the connection that has been without a request for the longest."""
        queues = [queue for queue in (self.pending_conns, self.keepalived_conns) if queue]
        if not queues:
            return
        conn = min(queues, key=lambda queue: queue[0].timeout).popleft()
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def _cut_slow(self) -> None:
        """Cut off clients that keep threads waiting for too long."""
        now_s = time.monotonic()
        services = self._services
        allowed_s = services.settings.deadline_s if services and self.alive else _STOP_PATIENCE_S
        waits = sorted(
            (
                (conn.waiting_since_s, conn)
                for conn in self._in_threads
                if conn.waiting_since_s is not None and not conn.cut_off
            ),
            key=lambda wait: wait[0],
        )
        wanted = sum(not conn.cut_off for conn in self._in_threads) - self.cfg.threads
        for since_s, conn in waits:
            if now_s - since_s > allowed_s:
                conn.too_slow = True
            elif wanted > 0 and now_s - since_s > _PATIENCE_S:
                conn.pushed_out = True
            else:
                break
            wanted -= 1
            conn.cut()

    # --- in the thread of one request

    def handle(self, conn: _Connection) -> Any:
        conn.data_ready = True
        conn.wait_for_client()
        keep = super().handle(conn)
        if not keep:
            conn.wait_for_client()
            conn.linger()
        conn.work()
        return keep and not conn.cut_off

    def handle_request(self, req: Any, conn: _Connection) -> Any:
        req.body = _Body(req.body, req, conn)
        return super().handle_request(req, conn)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = partial(_run, self.wsgi)


def _run(app: Any, environ: _Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Run the app, and tell the connection that its client has to take the answer then."""
    body = environ["wsgi.input"]
    connection = body.connection
    environ[ARRIVED] = connection.arrived_s
    environ[PROGRESS] = connection.progress

    def start(*args: Any) -> Any:
        body.answer()
        return start_response(*args)

    answer: Iterable[bytes] = app(environ, start)
    connection.wait_for_client(writes=True)
    return answer
