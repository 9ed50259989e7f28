"""``maskserve serve --on ray``: the application, on the cluster that runs here or on a new one."""

from __future__ import annotations

import logging
import os
import signal
import threading
from math import ceil

import ray
from ray import serve

from maskserve.api.logs import set_up_logging
from maskserve.api.settings import ServerSettings
from maskserve.cluster.application import FRONT_CPUS, MODEL_CPUS, make_application
from maskserve.cluster.ray_setup import prepare_ray
from maskserve.core.errors import ServerNotReadyError, ServerUnreachableError

__all__ = ["serve_on_ray"]

_APPLICATION = "maskserve"
_log = logging.getLogger(__name__)


def serve_on_ray(settings: ServerSettings) -> None:
    """Serve until the process is told to stop.

    Joins the cluster that ``RAY_ADDRESS`` names or that ``ray start`` began on this machine; else
    Ray runs here for as long as this process does. On SIGTERM or SIGINT the application is taken
    down: replicas finish what they have, and connections may break after that.

    Raises:
        SettingsError: A setting is not for Ray.
        UnknownModelError: There is no such model.
        BundleError: The manifest of one cannot be read.
        ServerUnreachableError: There is no cluster at ``RAY_ADDRESS``.
        ServerNotReadyError: The application could not be started.
    """
    set_up_logging(settings.log_level)
    application = make_application(settings)
    _connect(cpus=FRONT_CPUS + MODEL_CPUS * len(settings.models))
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


def _connect(*, cpus: float) -> None:
    """Join a cluster, or start one with at least so many CPUs, as Ray counts them.

    Raises:
        ServerUnreachableError: There is no cluster at ``RAY_ADDRESS``.
    """
    prepare_ray()
    try:
        try:
            # Replicas share the cores of a small machine; Ray would wait for more of them.
            _init(num_cpus=max(os.cpu_count() or 1, ceil(cpus)))
        except ValueError:  # there is a cluster, which has the CPUs that it has
            _init()
    except ConnectionError as error:
        raise ServerUnreachableError(
            f"No Ray cluster answers: {error}",
            hint="Start one with `ray start --head`, or unset RAY_ADDRESS.",
        ) from error
    known = ray.cluster_resources().get("CPU", 0)
    if known < cpus:
        _log.warning(
            "the application begins with %g CPUs, the cluster has %g: it waits for more nodes",
            cpus,
            known,
        )


def _init(*, num_cpus: int | None = None) -> None:
    ray.init(
        num_cpus=num_cpus,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
