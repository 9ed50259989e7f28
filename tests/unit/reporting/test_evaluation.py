from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from maskserve.core import Instances, Manifest, Provenance
from maskserve.evaluation import ERROR_KINDS
from maskserve.reporting.charts import ERROR_NAMES
from maskserve.reporting.evaluation import (
    Findings,
    evaluation_facts,
    evaluation_sections,
    write_evaluation_report,
)

MakeFindings = Callable[..., Findings]
MakeInstances = Callable[..., Instances]

BALL, BOX = (20, 20, 80, 80), (85, 5, 115, 45)


def section(findings: Findings, heading: str) -> str:
    (body,) = [part.body for part in evaluation_sections(findings) if part.heading == heading]
    return str(body)


def test_facts_are_those_of_the_threshold(make_findings: MakeFindings) -> None:
    facts = dict(evaluation_facts(make_findings()))
    assert facts["found at the threshold"] == "1 of 3"
    # A second ball on the first, a ball taken for a box, a ball where nothing is.
    assert facts["false at the threshold"] == "3"
    assert facts["confidence threshold"] == "0.50"
    assert facts["photos"] == "3"


def test_mistakes_are_counted_and_shown(make_findings: MakeFindings) -> None:
    html = section(make_findings(), "What goes wrong")
    rows = {
        cells[0]: cells[2]
        for row in re.findall("<tr>(.*?)</tr>", html)
        if len(cells := re.findall("<td.*?>(.*?)</td>", row)) == 4
    }
    assert rows == {
        "missed": "1",
        "false": "1",
        "found twice": "1",
        "badly located": "0",
        "badly masked": "0",
        "wrong class": "1",
    }
    assert html.count("<img") == 4
    assert "both.png, found with a confidence of only 0.40" in html
    assert "TIDE" in html


def test_every_kind_of_mistake_has_a_name() -> None:
    assert set(ERROR_NAMES) == set(ERROR_KINDS)


def test_worst_photos_come_first_and_none_is_shown_twice(make_findings: MakeFindings) -> None:
    findings = make_findings()
    headings = [part.heading for part in evaluation_sections(findings)]
    assert "Worst photos" in headings
    assert "Best photos" not in headings  # all three are among the worst
    names = re.findall(r"<h3>(.*?): quality", section(findings, "Worst photos"))
    assert names == ["ball.png", "&lt;b&gt;none.png", "both.png"]


def test_each_class_has_its_row(make_findings: MakeFindings) -> None:
    html = section(make_findings(), "How good it is")
    assert "<td>ball</td>" in html
    assert "<td>box</td>" in html


def test_a_flawless_model_has_no_pictures_of_mistakes(
    make_findings: MakeFindings, instances: MakeInstances
) -> None:
    findings = make_findings(
        instances((0, BALL, 0.9), (1, BOX, 0.9)),
        instances((0, BALL, 0.9)),
        instances(),
    )
    assert "<img" not in section(findings, "What goes wrong")
    assert dict(evaluation_facts(findings))["mask AP50"] == "100.0"


def test_a_model_that_finds_nothing_is_reported(
    make_findings: MakeFindings, instances: MakeInstances
) -> None:
    findings = make_findings(instances(), instances(), instances())
    assert dict(evaluation_facts(findings))["found at the threshold"] == "0 of 3"
    assert "not found with any confidence" in section(findings, "What goes wrong")


def test_the_page_is_written(make_findings: MakeFindings, tmp_path: Path) -> None:
    manifest = Manifest(
        name="fake",
        version="1",
        licence="Apache-2.0",
        created="2026-01-01T00:00:00Z",
        backbone="none",
        classes=("ball", "box"),
        category_ids=(1, 2),
        provenance=Provenance(data="none", initial_weights="none"),
        files={},
    )
    write_evaluation_report(tmp_path / "report.html", make_findings(), manifest)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>fake on toys val</title>" in html
    assert "<b>none.png" not in html


@pytest.mark.parametrize("photo", [0, 1, 2])
def test_what_is_shown_reaches_the_threshold(make_findings: MakeFindings, photo: int) -> None:
    shown = make_findings().shown(photo)
    assert len(shown) == [2, 1, 1][photo]
    assert (shown.scores >= 0.5).all()
