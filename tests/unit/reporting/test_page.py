from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from maskserve.core.errors import OutputError
from maskserve.reporting.page import (
    Section,
    facts,
    figure,
    pair,
    picture,
    side_by_side,
    table,
    write_page,
)


class Checker(HTMLParser):
    """Notes every address, and that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def chart() -> Figure:
    drawn = Figure(figsize=(2, 1))
    axes = drawn.subplots()
    axes.plot([0, 1], [1, 0], label="fall")
    axes.legend()
    return drawn


def test_a_page_is_sound_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    body = side_by_side(
        figure(chart(), alt="one"), figure(chart(), alt="two"), table(["a"], [[1]])
    ) + pair(*[picture(np.zeros((4, 6, 3), np.uint8), alt="black")] * 2)
    sections = [
        Section(f"Part {number}", body if not number else Markup("")) for number in range(3)
    ]
    write_page(tmp_path / "page.html", title="All <of> it", intro="A & B", sections=sections)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    for address in checker.addresses:
        assert address.startswith(("#", "data:image/jpeg;base64,")), address
        if address.startswith("#"):
            assert address[1:] in checker.ids
    assert "http" not in html
    assert "<script" not in html
    assert "All &lt;of&gt; it" in html
    assert "<p>A &amp; B</p>" in html


def test_numbers_are_aligned_and_text_is_escaped() -> None:
    html = table(["name", "AP"], [["<b>", 12.345], ["x", None]])
    assert '<td>&lt;b&gt;</td><td class="number">12.3</td>' in html
    assert '<td class="number">–</td>' in html
    assert '<th>name</th><th class="number">AP</th>' in html


def test_a_table_without_rows_has_its_headings() -> None:
    assert "<th>name</th>" in table(["name"], [])


def test_facts_are_names_with_values() -> None:
    assert "<dt>AP</dt><dd>&lt;1</dd>" in facts([("AP", "<1")])


def test_a_chart_is_the_same_each_time_and_scales() -> None:
    html = figure(chart(), alt='a "fall"')
    assert html == figure(chart(), alt='a "fall"')
    assert 'aria-label="a &#34;fall&#34;"' in html
    svg = re.search(r"<svg[^>]*>", html)
    assert svg is not None
    assert "viewBox" in svg[0]
    assert "width" not in svg[0]
    assert "#000000" not in html


def test_a_picture_has_its_size_and_a_caption_if_there_is_one() -> None:
    html = picture(np.zeros((4, 6, 3), np.uint8), alt="x", caption="below")
    assert 'width="6" height="4"' in html
    assert "<figcaption>below</figcaption>" in html
    assert "figcaption" not in picture(np.zeros((4, 6, 3), np.uint8), alt="x")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_page(tmp_path / "file" / "page.html", title="x", intro="", sections=[])
