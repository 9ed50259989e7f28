"""Loading the models beside the requests, and again when their bundles have changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from maskserve.api.keys import ApiKeys
from maskserve.api.services import Registry, Services
from maskserve.core.errors import MaskserveError, SettingsError

__all__ = ["start_loading"]

_log = logging.getLogger(__name__)


def start_loading(services: Services) -> None:
    """Load the models in a thread, which then waits for ``services.reload_asked``."""
    threading.Thread(target=_run, args=(services,), name="load-models", daemon=True).start()


def _run(services: Services) -> None:
    _guarded(_load, services.registry)
    while services.reload_asked.wait():
        services.reload_asked.clear()  # first, so that what is asked meanwhile is not forgotten
        _reload_keys(services.keys)
        _guarded(_reload, services.registry)


def _guarded(step: Callable[[Registry], None], registry: Registry) -> None:
    """Run a step so that its failure leaves the thread alive for the next one."""
    try:
        step(registry)
    except Exception:
        _log.exception("loading the models failed")


def _load(registry: Registry) -> None:
    registry.load()
    for name, error in registry.failures.items():
        _log.error("model %s could not be loaded: %s", name, error)
    if registry.ready:
        _log.info("ready: %s", ", ".join(registry.names))


def _reload_keys(keys: ApiKeys) -> None:
    try:
        keys.reload()
    except SettingsError as error:
        _log.error("reload: the API keys stay as they were: %s", error)


def _reload(registry: Registry) -> None:
    changed = registry.reload()
    if not changed:
        _log.info("reload: no bundle has changed")
    for name, error in changed.items():
        version = _version(registry, name)
        if error is None:
            _log.info("reload: model %s is version %s now", name, version)
        elif version is None:
            _log.error("reload: model %s could not be loaded: %s", name, error)
        else:
            _log.error(
                "reload: the changed bundle of model %s is refused, version %s stays: %s",
                name,
                version,
                error,
            )


def _version(registry: Registry, name: str) -> str | None:
    """That answers now, if any does."""
    try:
        return registry.get(name).manifest.version
    except MaskserveError:
        return None
