"""``maskserve data fetch``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from maskserve.cli.data_options import OutOption
from maskserve.cli.report import make_console, make_progress

__all__ = ["fetch"]

_MB = 1_000_000


def fetch(
    name: Annotated[
        Literal["balloon"], typer.Argument(help="What to download.", show_default=False)
    ],
    out: OutOption,
) -> None:
    """Download a public data set, and check every file's SHA-256.

    balloon is the example of Matterport's Mask R-CNN: 61 + 13 photos, 39 MB. They are from
    Flickr; no file states their licences.

    If it is interrupted, run it again: it goes on where it stopped.

    Examples:

        maskserve data fetch balloon --out balloon
    """
    from maskserve.datasets import fetch_release, find_release

    with make_progress() as progress:
        task = progress.add_task("Downloading, MB", total=None)
        fetch_release(
            find_release(name),
            out,
            on_progress=lambda done, total: progress.update(
                task, completed=done // _MB, total=None if total is None else total // _MB
            ),
        )
    make_console().print(f"All files are as they were published. Written to {out}", soft_wrap=True)
