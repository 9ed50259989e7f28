"""Prometheus metrics of one app, also where several processes serve it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from maskserve.core.manifest import Manifest

__all__ = ["Metrics", "MetricsFolder"]

_STAGE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_REQUEST_BUCKETS_S = (0.001, 0.0025, *_STAGE_BUCKETS_S, 51.2)

_LIVE: Final = "livesum"
"""Mode of a gauge: the sum over the workers that live."""


class MetricsFolder:
    """A private folder where the workers of a server keep their counts, so that each can tell all.

    The master makes it before there is a worker and removes it as the last thing.
    """

    def __init__(self) -> None:
        # In memory where the system has such a place: a full disk must not stop the counting.
        shared_memory = "/dev/shm"
        usable = os.access(shared_memory, os.W_OK | os.X_OK)
        self.path = Path(
            tempfile.mkdtemp(prefix="maskserve-metrics-", dir=shared_memory if usable else None)
        )

    def forget(self, pid: int) -> None:
        """A worker ended: its gauges no longer count. What it had counted stays."""
        mark_process_dead(pid, path=str(self.path))  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Metrics:
    """Counts requests and times their stages.

    Args:
        models: Gives the manifests of the models that are loaded.
        jobs: Gives the number of jobs in each state; None where there are none.
        folder: Of a :class:`MetricsFolder` where several processes serve, which this one must
            have been forked for; None where this process is the only one.
    """

    def __init__(
        self,
        *,
        models: Callable[[], Iterable[Manifest]],
        jobs: Callable[[], Mapping[str, int]] | None = None,
        folder: Path | None = None,
    ) -> None:
        registry = CollectorRegistry()
        if folder is None:
            self._told = registry
            ProcessCollector(registry=self._told)
        else:
            _keep_values_in(folder)
            self._told = CollectorRegistry()
            self._told.register(_Counts(folder))
            self._told.register(_Workers(folder))
        self._told.register(_Info(models))
        if jobs:
            self._told.register(_Jobs(jobs))

        self._requests = Counter(
            "maskserve_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self._duration = Histogram(
            "maskserve_request_seconds",
            "Time from a request's first bytes to its answer.",
            ("route",),
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._problems = Counter(
            "maskserve_problems",
            "Requests answered with a problem, by its code.",
            ("code",),
            registry=registry,
        )
        self._stages = Histogram(
            "maskserve_stage_seconds",
            "Time that a photo spent in each stage.",
            ("stage", "model"),
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self._job_photos = Counter(
            "maskserve_job_photos",
            "Photos of jobs that were worked off.",
            ("outcome",),
            registry=registry,
        )
        self._in_flight = Gauge(
            "maskserve_requests_in_flight",
            "Requests being answered.",
            registry=registry,
            multiprocess_mode=_LIVE,
        )
        self._waiting = Gauge(
            "maskserve_queue_depth",
            "Photos waiting for a network.",
            registry=registry,
            multiprocess_mode=_LIVE,
        )

    def enter_request(self) -> None:
        self._in_flight.inc()

    def leave_request(self) -> None:
        self._in_flight.dec()

    def wait(self, change: int) -> None:
        """So many more photos wait for a network, or fewer."""
        self._waiting.inc(change)

    def count_request(
        self, *, route: str, status: int, spent_s: float | None = None, code: str | None = None
    ) -> None:
        """Count an answer.

        Args:
            route: The rule, such as ``/v1/models/<name>``, not the path.
            status: Of HTTP.
            spent_s: Seconds since the request came, where that is known.
            code: Of the problem, where it is one.
        """
        self._requests.labels(route, str(status)).inc()
        if spent_s is not None:
            self._duration.labels(route).observe(spent_s)
        if code is not None:
            self._problems.labels(code).inc()

    def observe_stages(self, stages_ms: Mapping[str, float], *, model: str) -> None:
        """Record the milliseconds of each stage of one photo."""
        for stage, spent_ms in stages_ms.items():
            self._stages.labels(stage, model).observe(spent_ms / 1e3)

    def count_job_photo(self, *, failed: bool) -> None:
        self._job_photos.labels("failed" if failed else "done").inc()

    def to_text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._told)


def _keep_values_in(folder: Path) -> None:
    """Let metrics that are made from now on keep their values in files of this process."""
    # Usually prometheus_client decides by this variable when it is imported, which was before
    # anybody knew of the folder.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


class _Counts(Collector):
    """What the workers of a server have counted, those that ended included."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        # A worker makes its files empty and then gives them their size, at the first request that
        # it answers; prometheus_client fails on a file that is read in between.
        files = [str(file) for file in self._folder.glob("*.db") if _has_content(file)]
        return MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call, no-any-return]


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # the gauges of a worker that has just ended
        return False


class _Info(Collector):
    """What runs: ``maskserve_build_info``, and a ``maskserve_model_info`` for each loaded model."""

    def __init__(self, models: Callable[[], Iterable[Manifest]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        build = {name: version(name) for name in ("maskserve", "openvino")}
        build["python"] = platform.python_version()
        yield InfoMetricFamily("maskserve_build", "What serves.", value=build)
        models = InfoMetricFamily("maskserve_model", "Models that are loaded.")
        for manifest in self._models():
            models.add_metric(
                (),
                {
                    "name": manifest.name,
                    "version": manifest.version,
                    "backbone": manifest.backbone,
                },
            )
        yield models


class _Jobs(Collector):
    """``maskserve_jobs`` by state; all workers of a server see the same ones."""

    def __init__(self, count_by_state: Callable[[], Mapping[str, int]]) -> None:
        self._count_by_state = count_by_state

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("maskserve_jobs", "Jobs in the store.", labels=("state",))
        for state, count in self._count_by_state().items():
            jobs.add_metric((state,), count)
        yield jobs


class _Workers(Collector):
    """Memory, CPU time and open files of each living worker, by its ``pid``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for file in self._folder.glob(f"gauge_{_LIVE}_*.db"):
            pid = file.stem.rpartition("_")[2]
            for found in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                family = families.setdefault(
                    found.name, Metric(found.name, found.documentation, found.type, found.unit)
                )
                for sample in found.samples:
                    family.add_sample(sample.name, {"pid": pid}, sample.value)
        yield from families.values()
