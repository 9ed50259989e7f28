"""One HTML file that needs nothing else: no script, no font and no picture from elsewhere.

Text goes through MarkupSafe, so it may hold anything; what is :class:`Markup` goes in as it is.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from maskserve import __version__
from maskserve.core.predictor import Image
from maskserve.runtime.files import write_file
from maskserve.runtime.image_io import encode_image

__all__ = [
    "Cell",
    "Section",
    "facts",
    "figure",
    "pair",
    "picture",
    "side_by_side",
    "table",
    "write_page",
]

Cell = str | int | float | None
"""Of a table: text, which may be Markup, or a number; None shows as “–”."""

_NUMBER = re.compile(r"[+−-]?\d[\d.,]*%?( .*)?|–")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    Attributes:
        heading: Also the name of the link in the table of contents.
        body: What stands below it.
    """

    heading: str
    body: Markup


def write_page(path: Path, *, title: str, intro: str | Markup, sections: Sequence[Section]) -> None:
    """Write a page that reads well on a phone, in the dark and on paper.

    Args:
        path: The file, which is replaced as a whole.
        title: Heading of the page.
        intro: What stands above the table of contents: a sentence, or whole blocks of markup.
        sections: In this order.

    Raises:
        OutputError: The file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("maskserve.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        title=title, intro=_block(intro), sections=sections, version=__version__
    )
    write_file(path, html)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Markup:
    """A table that scrolls sideways where it is too wide.

    Args:
        columns: Headings.
        rows: As long as ``columns`` each. Floats get one decimal; columns with nothing but
            numbers, or text that begins like one, are aligned to the right.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    numeric = [
        all(_NUMBER.fullmatch(text) for text in column) for column in zip(*texts, strict=True)
    ]
    classes = [Markup(' class="number"') if is_number else "" for is_number in numeric]
    classes = classes or [""] * len(columns)

    def row_of(tag: str, cells: Sequence[str]) -> Markup:
        return Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup(f"<{tag}{{}}>{{}}</{tag}>").format(*pair)
                for pair in zip(classes, cells, strict=True)
            )
        )

    return Markup(
        '<div class="wide"><table><thead>{}</thead><tbody>\n{}\n</tbody></table></div>\n'
    ).format(row_of("th", columns), Markup("\n").join(row_of("td", cells) for cells in texts))


def facts(pairs: Sequence[tuple[str, str | Markup]]) -> Markup:
    """Names with a value each, large: what somebody wants to know first."""
    return Markup('<dl class="facts">\n{}\n</dl>\n').format(
        Markup("\n").join(
            Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*pair) for pair in pairs
        )
    )


def figure(figure: Figure, *, alt: str, caption: str | Markup = "") -> Markup:
    """A chart as inline SVG, whose black is the page's text colour, also in the dark.

    Args:
        figure: Drawn with a legend without frame; its own background does not show.
        alt: What it shows, in words, for who cannot see it.
        caption: What stands below it.
    """
    buffer = io.StringIO()
    # Text stays text. The salt tells the charts of a page apart, whose clip paths have ids, and
    # makes the file the same each time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # which nothing refers to
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("xlink:href", "href").replace("#000000", "currentColor")
    label = Markup('<svg role="img" aria-label="{}"').format(alt)
    return _figure(Markup(svg.replace("<svg", label, 1)), caption)


def picture(image: Image, *, alt: str, caption: str | Markup = "") -> Markup:
    """A photo as inline JPEG.

    Args:
        image: uint8, shape (H, W, 3), RGB; as large as it shall be at most.
        alt: What it shows, in words, for who cannot see it.
        caption: What stands below it.
    """
    data = base64.b64encode(encode_image(image, "image/jpeg", quality=85)).decode("ascii")
    height, width = image.shape[:2]
    tag = Markup('<img src="data:image/jpeg;base64,{}" width="{}" height="{}" alt="{}">').format(
        data, width, height, alt
    )
    return _figure(tag, caption)


def side_by_side(*blocks: Markup) -> Markup:
    """Charts, tables or pictures in as many columns of the same width as there is room for."""
    return Markup('<div class="columns">\n{}</div>\n').format(Markup("").join(blocks))


def pair(left: Markup, right: Markup) -> Markup:
    """Two pictures close to each other, to compare; one below the other where it is narrow."""
    return Markup('<div class="pair">\n{}{}</div>\n').format(left, right)


def _figure(content: Markup, caption: str | Markup) -> Markup:
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
    return Markup("<figure>{}{}</figure>\n").format(content, below)


def _block(text: str | Markup) -> Markup:
    return text if isinstance(text, Markup) else Markup("<p>{}</p>").format(text)


def _cell(cell: Cell) -> Markup:
    if cell is None:
        return Markup("–")
    return escape(f"{cell:.1f}" if isinstance(cell, float) else cell)
