"""What the routes share: settings, models, admission and metrics of one app."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from flask import current_app

from maskserve.api.admission import Admission
from maskserve.api.jobs.store import JobStore, StoreLimits
from maskserve.api.keys import ApiKeys
from maskserve.api.metrics import Metrics
from maskserve.api.settings import ServerSettings
from maskserve.api.tracing import Tracing
from maskserve.core.errors import MaskserveError, ServerNotReadyError
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.image_io import ImageLimits
from maskserve.runtime.predictor import StageTimes

__all__ = ["Registry", "Services", "TimedPredictor", "current_services", "open_jobs"]


class TimedPredictor(Protocol):
    """As ``runtime.EnginePredictor``."""

    @property
    def manifest(self) -> Manifest: ...

    def predict_timed(
        self, image: Image, *, min_score: float | None = None
    ) -> tuple[Instances, StageTimes]: ...


class Registry(Protocol):
    """As ``runtime.ModelRegistry``."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def ready(self) -> bool: ...

    @property
    def failures(self) -> Mapping[str, MaskserveError]: ...

    def get(self, name: str) -> TimedPredictor: ...

    def load(self) -> None: ...

    def reload(self) -> Mapping[str, MaskserveError | None]: ...


class Services:
    """One app's share of everything that outlives a request.

    Attributes:
        jobs: The store of jobs; None where the server keeps none.
        draining: Set once the server was asked to stop.
        reload_asked: Set when the server was asked to look for changed bundles.
    """

    def __init__(
        self,
        settings: ServerSettings,
        registry: Registry,
        *,
        metrics_folder: Path | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.limits = ImageLimits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
        self.keys = ApiKeys(settings)
        self.jobs = open_jobs(settings)
        self.metrics = Metrics(
            models=self.loaded,
            jobs=self.jobs.count_by_state if self.jobs else None,
            folder=metrics_folder,
        )
        self.tracing = tracing
        self.admission = Admission(
            concurrency=settings.concurrency,
            queue_size=settings.queue_size,
            on_wait=self.metrics.wait,
        )
        self.draining = threading.Event()
        self.reload_asked = threading.Event()

    def loaded(self) -> list[Manifest]:
        """Manifests of the models that are ready, in the order of the settings."""
        manifests = []
        for name in self.registry.names:
            with suppress(MaskserveError):
                manifests.append(self.registry.get(name).manifest)
        return manifests

    def require_models(self) -> None:
        """Check that every model has answered a warm-up.

        Raises:
            ServerNotReadyError: Not yet, or some model failed to load; says which and how.
        """
        if self.registry.failures:
            failed = "; ".join(
                f"{name}: {error.title} ({error.code})"
                for name, error in self.registry.failures.items()
            )
            raise ServerNotReadyError(
                f"Not every model could be loaded. {failed}.", hint="The server's log says more."
            )
        if not self.registry.ready:
            raise ServerNotReadyError(
                "The models are still loading.", hint="Try again in a few seconds."
            )


def open_jobs(settings: ServerSettings) -> JobStore | None:
    """The store of jobs; None where the settings name no folder for it.

    Raises:
        SettingsError: The folder cannot be used.
    """
    if settings.jobs_dir is None:
        return None
    limits = StoreLimits(
        max_jobs=settings.jobs_max_count,
        max_bytes=settings.jobs_max_bytes,
        keep_s=settings.jobs_keep_s,
    )
    return JobStore(settings.jobs_dir, limits)


def current_services() -> Services:
    """The services of the app that handles the current request."""
    services: Services = current_app.extensions["maskserve"]
    return services
