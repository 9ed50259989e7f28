from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from comparison_fakes import CITED, make_comparison, make_model
from maskserve.evaluation.bootstrap import Interval

pytest.importorskip("matplotlib", reason="pages need the extra “report”")

from maskserve.reporting.comparison_page import (
    draw_pareto,
    draw_stages,
    pareto_front,
    write_comparison_page,
)


def test_what_another_model_beats_in_both_is_not_on_the_front() -> None:
    fast = make_model("fast", mask_ap=60, network_ms=10)
    good = make_model("good", mask_ap=80, network_ms=100)
    beaten = make_model("beaten", mask_ap=59, network_ms=11)
    twin = make_model("twin", mask_ap=80, network_ms=100)
    assert pareto_front([beaten, good, twin, fast]) == [fast, good]


def test_the_page_stands_alone_and_tells_the_command(tmp_path: Path) -> None:
    models = [make_model("<first>"), make_model("second", change=Interval(2, 4))]
    path = tmp_path / "comparison.html"
    write_comparison_page(
        path, make_comparison(models, cited=[CITED]), command="maskserve compare '<first>' second"
    )
    html = path.read_text(encoding="utf-8")
    assert "<first>" not in html
    assert "maskserve compare &#39;&lt;first&gt;&#39; second" in html
    for text in ("a fast machine", "OpenVINO 1", "0.2 programs", "seed 0", "640 × 480 px", "bf16"):
        assert text in html
    assert "Theirs: https://example.org, measured there on their photos." in html
    assert "<strong>+3.0 (+2.0…+4.0)</strong>" in html  # for the interval does not hold 0
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert "<script" not in html


def test_times_far_apart_are_drawn_on_a_logarithmic_axis() -> None:
    near = [make_model("a", network_ms=10), make_model("b", network_ms=20)]
    far = [*near, make_model("c", network_ms=900)]
    assert draw_pareto(make_comparison(near)).axes[0].get_xscale() == "linear"
    assert draw_pareto(make_comparison(far)).axes[0].get_xscale() == "log"


def test_names_of_others_do_not_overlap() -> None:
    close = [CITED, *(type(CITED)(f"Theirs {i}", "s", "d", {"mask_AP": 77.7}) for i in range(2))]
    strip = draw_pareto(make_comparison([make_model("a")], cited=close)).axes[1]
    heights = sorted(text.xy[1] for text in strip.texts)  # type: ignore[attr-defined]
    low, high = strip.get_ylim()
    assert low < heights[0]
    assert all(upper - lower > 0.08 * (high - low) for lower, upper in pairwise(heights))


def test_a_stage_can_be_left_out() -> None:
    comparison = make_comparison([make_model("a", network_ms=50)])
    ends = [
        draw_stages(comparison, leave_out=names).axes[0].texts[0].get_text().strip()
        for names in ([], ["network"])
    ]
    assert ends == ["56", "6"]  # every other stage takes 1 ms
