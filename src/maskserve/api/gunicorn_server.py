"""gunicorn, run from Python instead of from its own command line."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger

from maskserve.api.gunicorn_errors import answer_as_app_does
from maskserve.api.gunicorn_worker import Worker
from maskserve.api.metrics import MetricsFolder
from maskserve.api.settings import ServerSettings

__all__ = ["GunicornServer"]

_CONNECTIONS = 512
_KEEP_ALIVE_S = 75
"""Longer than proxies keep theirs, so that they never send on one that closes. An idle connection
costs no thread, and gives way when there are too many."""
_STOP_S = 10
"""Beyond the draining and a request's deadline, before the master kills."""
_SHARED_MEMORY = "/dev/shm"


class _Arbiter(Arbiter):  # type: ignore[misc]
    """The master process, which leaves it to its workers to look for changed bundles."""

    def handle_hup(self) -> None:
        """On SIGHUP; gunicorn would start new workers, which have no models yet."""
        self.kill_workers(signal.SIGHUP)


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's messages, as lines like all others."""

    def setup(self, cfg: Config) -> None:
        """Called by gunicorn."""
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True


class GunicornServer(BaseApplication):  # type: ignore[misc]
    """One worker process with many threads, or a few of them.

    Args:
        settings: Gives the number of threads.
        listener: Where connections come from; closed by gunicorn.
        make_app: Called once, in the worker process: neither threads nor inference engines
            survive a fork.
        metrics_folder: Where there are several workers; removed when the server has stopped.
    """

    def __init__(
        self,
        settings: ServerSettings,
        listener: socket.socket,
        *,
        make_app: Callable[[], Flask],
        metrics_folder: MetricsFolder | None = None,
    ) -> None:
        self._settings = settings
        self._listener_fd = listener.detach()
        self._make_app = make_app
        self._metrics_folder = metrics_folder
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        values = {
            "bind": f"fd://{self._listener_fd}",
            "workers": self._settings.workers,
            "worker_class": Worker,
            "worker_connections": self._settings.threads + _CONNECTIONS,
            "threads": self._settings.threads,
            "keepalive": _KEEP_ALIVE_S,
            "graceful_timeout": int(self._settings.drain_s + self._settings.deadline_s) + _STOP_S,
            # The heartbeat's file, which nobody ever sees, in a place that can always be written.
            "worker_tmp_dir": _SHARED_MEMORY if Path(_SHARED_MEMORY).is_dir() else None,
            "loglevel": "warning",
            "logger_class": _Logger,
            "forwarded_allow_ips": "",  # the app knows which proxies to trust, see create_app
            "control_socket_disable": True,  # gunicorn would leave one in the home folder
        }
        if self._metrics_folder:
            folder = self._metrics_folder
            values["child_exit"] = lambda _, worker: folder.forget(worker.pid)
            values["on_exit"] = lambda _: folder.remove()
        for name, value in values.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until the process is told to stop; it exits then."""
        _Arbiter(self).run()

    def load(self) -> Flask:
        """Called by gunicorn, in the worker."""
        app = self._make_app()
        answer_as_app_does(app.extensions["maskserve"].metrics)
        return app
