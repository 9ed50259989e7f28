"""gunicorn, run from Python instead of from its own command line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import FrameType

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from maskserve.api.services import Services
from maskserve.api.settings import ServerSettings

__all__ = ["DrainingWorker", "GunicornServer"]

_GRACEFUL_STOP_S = 30


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """A worker that tells load balancers that it stops before it does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM: not ready from now on, and no more connections after ``drain_s``."""
        app = self.app.callable
        if app is None:  # it is not even made yet
            super().handle_exit(sig, frame)
            return
        services: Services = app.extensions["maskserve"]
        services.draining.set()
        stop = threading.Timer(services.settings.drain_s, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()


class GunicornServer(BaseApplication):  # type: ignore[misc]
    """One worker process with many threads.

    Args:
        settings: Gives the number of threads.
        listener: Where connections come from; closed by gunicorn.
        make_app: Called once, in the worker process: neither threads nor inference engines
            survive a fork.
    """

    def __init__(
        self, settings: ServerSettings, listener: socket.socket, *, make_app: Callable[[], Flask]
    ) -> None:
        self._settings = settings
        self._listener_fd = listener.detach()
        self._make_app = make_app
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        values = {
            "bind": f"fd://{self._listener_fd}",
            "workers": 1,
            "worker_class": DrainingWorker,
            "threads": self._settings.threads,
            "graceful_timeout": _GRACEFUL_STOP_S,
            "loglevel": "warning",
            "control_socket_disable": True,  # gunicorn would leave one in the home folder
        }
        for name, value in values.items():
            if name in self.cfg.settings:  # older versions have no control socket
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called by gunicorn, in the worker."""
        return self._make_app()
