"""Metrics that several processes keep together."""

from __future__ import annotations

import os
from collections.abc import Iterator

import prometheus_client.values
import pytest

from maskserve.api.metrics import Metrics, MetricsFolder


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsFolder]:
    """A folder of metrics; those that later tests make are in memory again."""
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    folder = MetricsFolder()
    yield folder
    folder.remove()


@pytest.mark.parametrize("name", ["counter_1.db", "histogram_1.db", "gauge_livesum_1.db"])
def test_a_worker_whose_file_is_still_empty_counts_nothing(
    folder: MetricsFolder, name: str
) -> None:
    metrics = Metrics(models=list, folder=folder.path)
    metrics.count_request(route="/", status=200)
    (folder.path / name).touch()
    assert 'maskserve_requests_total{route="/",status="200"} 1.0' in metrics.to_text().decode()


def test_a_worker_that_ends_takes_its_gauges_along_but_not_its_counts(
    folder: MetricsFolder,
) -> None:
    metrics = Metrics(models=list, folder=folder.path)
    metrics.enter_request()
    metrics.count_request(route="/", status=200)
    folder.forget(os.getpid())
    text = metrics.to_text().decode()
    assert "maskserve_requests_in_flight" not in text
    assert 'maskserve_requests_total{route="/",status="200"} 1.0' in text
