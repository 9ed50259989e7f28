from __future__ import annotations

import csv
from io import StringIO

import pytest
from rich.console import Console

from comparison_fakes import CITED, make_comparison, make_model
from maskserve.evaluation.bootstrap import Interval
from maskserve.evaluation.comparison import Comparison, Estimate
from maskserve.evaluation.comparison_table import (
    change_text,
    cited_lines,
    comparison_csv,
    comparison_markdown,
    comparison_table,
    value_text,
    verdicts,
)
from maskserve.evaluation.measures import MEASURES


@pytest.fixture
def comparison() -> Comparison:
    better = make_model("a|b", mask_ap=74.25, change=Interval(1.5, 7.5))
    return make_comparison([make_model("first"), better], cited=[CITED])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Interval(1.5, 7.5), "mask AP +4.5 against first (95 % interval +1.5 to +7.5), more than"),
        (Interval(-7, -3), "mask AP −5.0 against first (95 % interval −7.0 to −3.0), more than"),
        (Interval(-1, 3), "mask AP +1.0 against first (95 % interval −1.0 to +3.0), which may be"),
        (Interval(0, 0), "mask AP 0.0 against first (95 % interval 0.0 to 0.0), which may be"),
    ],
)
def test_the_verdict_doubts_what_may_be_chance(change: Interval, words: str) -> None:
    models = [make_model("first"), make_model("second", change=change)]
    (verdict,) = verdicts(make_comparison(models))
    assert verdict.startswith(f"second: {words}")
    assert verdict.endswith("A photo takes 12 times as long.")


def test_accuracies_differ_by_points_and_times_by_factors() -> None:
    accuracy = next(m for m in MEASURES if m.key == "mask_AP")
    time = next(m for m in MEASURES if m.key == "network_ms")
    estimate = Estimate(70.0, None, -0.04, Interval(-1.26, 0.5))
    assert change_text(accuracy, estimate) == "0.0 (−1.3…+0.5)"
    assert change_text(time, Estimate(9, None, 1.5, Interval(0.5, 12))) == "1.50 × (0.50–12)"
    assert change_text(time, Estimate(9)) == "–"
    assert [value_text(time, x) for x in (None, 9.87, 1234.5)] == ["–", "9.9", "1234"]


def test_the_terminal_shows_every_measure_of_every_model(comparison: Comparison) -> None:
    printed = StringIO()
    Console(file=printed, width=80).print(comparison_table(comparison))
    text = printed.getvalue()
    for measure in MEASURES:
        assert f"│ {measure.title} " in text
    assert "74.2 (69.2–79.2)" in text
    assert "toys val: 13 photos, 50 instances" in text


def test_figures_of_others_have_their_source(comparison: Comparison) -> None:
    heading, line = cited_lines(comparison)
    assert "not measured here" in heading
    assert line == "Theirs: https://example.org, measured there on their photos. mask AP 77.8"
    assert cited_lines(make_comparison([make_model("only")])) == []


def test_markdown_has_tables_of_equal_width_and_escapes_bars(comparison: Comparison) -> None:
    text = comparison_markdown(comparison)
    row = r"| mask AP | 70.0 (65.0–75.0) | 74.2 (69.2–79.2) | +4.5 (+1.5…+7.5) | 77.8 |"
    assert row in text.splitlines()
    assert r"| a\|b |" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        widths = {line.replace(r"\|", "").count("|") for line in table.strip().splitlines()}
        assert len(widths) == 1


def test_csv_has_a_line_for_each_model_and_measure(comparison: Comparison) -> None:
    rows = list(csv.DictReader(StringIO(comparison_csv(comparison))))
    assert len(rows) == 2 * len(MEASURES) + 1
    of_second = {row["measure"]: row for row in rows if row["model"] == "a|b"}
    assert of_second["mask_AP"]["value"] == "74.25"
    assert of_second["mask_AP"]["against_first_low"] == "1.5"
    assert of_second["mask_APs"]["value"] == of_second["mask_APs"]["low"] == ""
    assert rows[-1] == {
        **dict.fromkeys(rows[-1], ""),
        "model": "Theirs",
        "measure": "mask_AP",
        "value": "77.8",
        "source": "https://example.org (their photos)",
    }
