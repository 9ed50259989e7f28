"""``maskserve serve --on ray``: the application, on the cluster that runs here or on a new one."""

from __future__ import annotations

import logging
import signal
import threading

import ray
from ray import serve

from maskserve.api.logs import set_up_logging
from maskserve.api.settings import ServerSettings
from maskserve.cluster.application import make_application
from maskserve.cluster.ray_setup import prepare_ray
from maskserve.core.errors import ServerNotReadyError

__all__ = ["serve_on_ray"]

_APPLICATION = "maskserve"
_log = logging.getLogger(__name__)


def serve_on_ray(settings: ServerSettings) -> None:
    """Serve until the process is told to stop.

    Joins the cluster that ``RAY_ADDRESS`` names or that ``ray start`` began on this machine; else
    Ray runs here for as long as this process does. On SIGTERM or SIGINT the application is taken
    down, and accepted requests are answered.

    Raises:
        SettingsError: A setting is not for Ray.
        UnknownModelError: There is no such model.
        BundleError: The manifest of one cannot be read.
        ServerNotReadyError: The application could not be started, such as for want of CPUs.
    """
    set_up_logging(settings.log_level)
    application = make_application(settings)
    prepare_ray()
    ray.init(logging_level=logging.WARNING, log_to_driver=False, include_dashboard=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        try:
            serve.run(application, name=_APPLICATION, route_prefix="/")
        except RuntimeError as error:
            raise ServerNotReadyError(
                f"Ray Serve could not start the application: {error}",
                hint="`serve status` and the logs in /tmp/ray/session_latest/logs/serve say more.",
            ) from error
        _log.info("ready at http://%s:%d", settings.host, settings.port)
        stop.wait()
        serve.delete(_APPLICATION)
    finally:
        ray.shutdown()
