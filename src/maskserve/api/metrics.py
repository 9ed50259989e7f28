"""Prometheus metrics of one app, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

from maskserve.core.manifest import Manifest

__all__ = ["Metrics"]

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)


class Metrics:
    """Counts requests and times their stages.

    Args:
        waiting: Gives the number of photos that wait for a network.
        models: Gives the manifests of the models that are loaded.
    """

    def __init__(
        self, *, waiting: Callable[[], int], models: Callable[[], Iterable[Manifest]]
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "maskserve_requests",
            "Requests answered.",
            ("route", "status"),
            registry=self._registry,
        )
        self._stages = Histogram(
            "maskserve_stage_seconds",
            "Time that a photo spent in each stage.",
            ("stage",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        Gauge(
            "maskserve_queue_depth", "Photos waiting for a network.", registry=self._registry
        ).set_function(waiting)
        self._registry.register(_ModelInfo(models))

    def count_request(self, *, route: str, status: int) -> None:
        """Count an answer; ``route`` is the rule, such as ``/v1/models/<name>``, not the path."""
        self._requests.labels(route, str(status)).inc()

    def observe_stages(self, stages_ms: Mapping[str, float]) -> None:
        """Record the milliseconds of each stage of one photo."""
        for stage, spent_ms in stages_ms.items():
            self._stages.labels(stage).observe(spent_ms / 1e3)

    def to_text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _ModelInfo(Collector):
    """One ``maskserve_model_info`` for each loaded model, made when it is scraped."""

    def __init__(self, models: Callable[[], Iterable[Manifest]]) -> None:
        self._models = models

    def collect(self) -> Iterable[InfoMetricFamily]:
        family = InfoMetricFamily("maskserve_model", "Models that are loaded.")
        for manifest in self._models():
            family.add_metric(
                (),
                {
                    "name": manifest.name,
                    "version": manifest.version,
                    "backbone": manifest.backbone,
                },
            )
        yield family
