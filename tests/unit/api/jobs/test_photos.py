"""Names in the ZIP of pictures."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskserve.api.jobs.photos import picture_name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.png", "00003-a.jpg"),
        ("party/a.b.png", "party/00003-a.b.jpg"),
        ("../../etc/passwd", "etc/00003-passwd.jpg"),
        ("/root.webp", "00003-root.jpg"),
        ("C:\\photos\\a.jpg", "C_/photos/00003-a.jpg"),
        (".hidden", "00003-.hidden.jpg"),
        ("..", "00003-photo.jpg"),
        ("", "00003-photo.jpg"),
        ("a\nb?.jpg", "00003-a_b_.jpg"),
    ],
)
def test_picture_name(file: str, name: str) -> None:
    assert picture_name(3, file) == name


@given(file=st.text(max_size=300), position=st.integers(0, 10_000))
def test_no_picture_name_leads_out_of_a_folder(file: str, position: int) -> None:
    *folders, name = picture_name(position, file).split("/")
    assert all(folder not in ("", ".", "..") for folder in folders)
    assert re.fullmatch(rf"{position:05d}-.+\.jpg", name, re.DOTALL)
    assert not re.search(r'[\x00-\x1f\\:<>"|?*]', "".join(folders) + name)
