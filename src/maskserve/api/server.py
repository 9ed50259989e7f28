"""Running the app: one process whose threads share the models."""

from __future__ import annotations

import logging
import socket
import sys
import threading

from flask import Flask

from maskserve.api.app import create_app
from maskserve.api.logs import set_up_logging
from maskserve.api.services import Registry
from maskserve.api.settings import ServerSettings
from maskserve.core.errors import SettingsError

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(settings: ServerSettings, registry: Registry) -> None:
    """Serve until the process is told to stop.

    Models are loaded in a thread of the process that answers: ``/healthz`` says 200 at once and
    ``/readyz`` once all of them are warm. SIGTERM makes ``/readyz`` say 503 for
    ``settings.drain_s``; then no more connections are taken and running requests finish.

    Raises:
        SettingsError: The address cannot be listened on.
    """
    set_up_logging()
    listener = _listen(settings.host, settings.port)
    if sys.platform == "win32":
        _serve_with_werkzeug(settings, registry, listener)
    else:
        # Not on Windows, where gunicorn cannot even be imported.
        from maskserve.api.gunicorn_server import GunicornServer  # noqa: PLC0415

        GunicornServer(settings, listener, make_app=lambda: _make_app(settings, registry)).run()


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


def _make_app(settings: ServerSettings, registry: Registry) -> Flask:
    """The app, whose models begin to load at once."""
    app = create_app(settings, registry)
    threading.Thread(target=_load, args=(registry,), name="load-models", daemon=True).start()
    return app


def _load(registry: Registry) -> None:
    try:
        registry.load()
    except Exception:
        _log.exception("loading the models failed")
        return
    for name, error in registry.failures.items():
        _log.error("model %s could not be loaded: %s", name, error)
    if registry.ready:
        _log.info("ready: %s", ", ".join(registry.names))


def _serve_with_werkzeug(
    settings: ServerSettings, registry: Registry, listener: socket.socket
) -> None:
    from werkzeug.serving import make_server  # noqa: PLC0415

    _log.warning("gunicorn does not run on Windows; serving with werkzeug, for a few users only")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the app logs each request itself
    app = _make_app(settings, registry)
    make_server(
        settings.host, settings.port, app, threaded=True, fd=listener.fileno()
    ).serve_forever()
