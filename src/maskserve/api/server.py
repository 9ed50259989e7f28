"""Running the app: one process whose threads share the models."""

from __future__ import annotations

import logging
import os
import socket
import sys
from ipaddress import ip_address

from flask import Flask

from maskserve.api.app import create_app
from maskserve.api.jobs.worker import JobWorker
from maskserve.api.keys import ApiKeys
from maskserve.api.loading import start_loading
from maskserve.api.logs import set_up_logging
from maskserve.api.metrics import MetricsFolder
from maskserve.api.services import Registry, Services, open_jobs
from maskserve.api.settings import ServerSettings
from maskserve.api.tracing import is_tracing_wanted, make_exporting_tracing
from maskserve.core.errors import SettingsError
from maskserve.runtime.allocator import return_large_blocks

__all__ = ["make_app", "serve"]

_log = logging.getLogger(__name__)


def serve(settings: ServerSettings, registry: Registry) -> None:
    """Serve until the process is told to stop.

    Models are loaded in a thread of the process that answers: ``/healthz`` says 200 at once and
    ``/readyz`` once all of them are warm. SIGTERM makes ``/readyz`` say 503 for
    ``settings.drain_s``; then no more connections are taken and running requests finish. SIGHUP
    loads bundles that have changed.

    Raises:
        SettingsError: The address cannot be listened on, the API keys cannot be read, or the folder
            of jobs cannot be used.
    """
    set_up_logging(settings.log_level)
    _check_access(settings)
    _check_jobs(settings)
    return_large_blocks()
    listener = _listen(settings.host, settings.port)
    if sys.platform == "win32":
        _serve_with_werkzeug(settings, registry, listener)
    else:
        # Not on Windows, where gunicorn cannot even be imported.
        from maskserve.api.gunicorn_server import GunicornServer  # noqa: PLC0415

        folder = MetricsFolder() if settings.workers > 1 else None
        GunicornServer(
            settings,
            listener,
            make_app=lambda: make_app(settings, registry, metrics_folder=folder),
            metrics_folder=folder,
        ).run()


def _check_access(settings: ServerSettings) -> None:
    """Check the keys before anything is begun, and warn of a server that is open to others."""
    if ApiKeys(settings).required or _is_loopback(settings.host):
        return
    _log.warning(
        "whoever reaches %s can use this server: it asks for no API key, see docs/security.md",
        settings.host,
    )


def _check_jobs(settings: ServerSettings) -> None:
    """Check the folder of jobs before there are processes that use it."""
    jobs = open_jobs(settings)
    if jobs:
        jobs.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; made here so that a taken port is an error of ours, at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise SettingsError(
            f"The server cannot listen on {host}:{port}: {error.strerror or error}.",
            hint="Choose another address with --host and --port.",
        ) from None
    name = f"[{host}]" if family == socket.AF_INET6 else host
    _log.info("listening on http://%s:%d", name, listener.getsockname()[1])
    return listener


def make_app(
    settings: ServerSettings, registry: Registry, *, metrics_folder: MetricsFolder | None = None
) -> Flask:
    """The app, whose models begin to load at once."""
    app = create_app(
        settings,
        registry,
        metrics_folder=metrics_folder.path if metrics_folder else None,
        tracing=make_exporting_tracing() if is_tracing_wanted(os.environ) else None,
    )
    services: Services = app.extensions["maskserve"]
    start_loading(services)
    if services.jobs:
        JobWorker(services, services.jobs).start()
    return app


def _serve_with_werkzeug(
    settings: ServerSettings, registry: Registry, listener: socket.socket
) -> None:
    from werkzeug.serving import make_server  # noqa: PLC0415

    _log.warning("gunicorn does not run on Windows; serving with werkzeug, for a few users only")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the app logs each request itself
    app = make_app(settings, registry)
    make_server(
        settings.host, settings.port, app, threaded=True, fd=listener.fileno()
    ).serve_forever()
