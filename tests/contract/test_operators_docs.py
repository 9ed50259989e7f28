"""What operators read names everything that there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api_fakes import make_client, make_registry
from maskserve.api import ServerSettings
from maskserve.api.services import Services
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import encode_image

REPOSITORY = Path(__file__).parents[2]
MONITORING = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
ALERTS = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text())


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of samples, as queries have them, and their labels."""
    client = make_client(make_registry(), jobs_dir=tmp_path_factory.mktemp("jobs"))
    services: Services = client.application.extensions["maskserve"]
    photo = encode_image(render_balloons(size=(64, 64), count=1, seed=0)[0], "image/png")
    client.post("/v1/segment", data=photo)
    client.get("/nothing")
    services.metrics.count_job_photo(failed=False)
    text = client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:maskserve|process)_[a-z_]+\b", text))


def test_every_metric_is_described(metrics: dict[str, set[str]]) -> None:
    base = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for name in metrics
        if not name.endswith("_created")
    }
    described = {
        name for line in MONITORING.splitlines() if line[:2] == "| " for name in names_in(line)
    }
    assert described == base


def test_every_field_of_a_request_is_described(caplog: pytest.LogCaptureFixture) -> None:
    photo = encode_image(render_balloons(size=(64, 64), count=1, seed=0)[0], "image/png")
    with caplog.at_level("INFO", logger="maskserve.access"):
        make_client(make_registry()).post("/v1/segment", data=photo)
    fields: dict[str, Any] = vars(caplog.records[-1])["fields"]
    for name in (*fields, *fields["stages_ms"], "key", "code", "trace_id"):
        assert f"`{name}`" in MONITORING


def test_alerts_and_queries_ask_for_metrics_that_exist(metrics: dict[str, set[str]]) -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    queries = [rule["expr"] for rule in rules]
    queries += re.findall(r"```promql\n(.*?)```", MONITORING, flags=re.DOTALL)
    for query in queries:
        assert names_in(query) <= set(metrics), query
        for name, selectors in re.findall(r"\b((?:maskserve|process)_\w+)\{([^}]*)\}", query):
            labels = set(re.findall(r'(\w+)(?:=~|!=|=)"', selectors))
            assert labels <= metrics[name] | {"job", "instance"}, query
    for rule in rules:
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert set(rule) == {"alert", "expr", "for", "annotations"}


def test_every_setting_is_described() -> None:
    described = "".join(
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs").glob("*.md")
    )
    missing = [name for name in ServerSettings.model_fields if f"`{name}`" not in described]
    assert missing == []
