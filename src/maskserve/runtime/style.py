"""Names of the ways to draw, apart from ``render`` so that they cost no import of OpenCV."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["STYLES", "Style"]

Style = Literal["overlay", "outline", "splash", "mask"]
STYLES: tuple[Style, ...] = get_args(Style)
