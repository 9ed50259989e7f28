"""Photos, commands and rows of runs over many photos, for the tests of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from maskserve.batch.rows import Row
from maskserve.runtime.image_io import encode_image, write_image

__all__ = ["BROKEN", "command", "environment", "make_photos", "rows_of"]

_SOUND = encode_image(np.full((60, 80, 3), 128, np.uint8), "image/png")
_BOMB = bytearray(_SOUND)
_BOMB[16:24] = (60_000).to_bytes(4, "big") * 2  # the size that the header tells

BROKEN = {
    "zero.jpg": (b"", "image_missing"),
    "cut.png": (_SOUND[:-40], "image_undecodable"),
    "text.jpeg": (b"hello", "image_undecodable"),
    "gif.webp": (b"GIF89a" + bytes(20), "image_type_unsupported"),
    "bomb.PNG": (bytes(_BOMB), "image_too_large"),
}
"""Photos that cannot be used, and the code of the error."""

_ON_RAY = """
import ray, sys
from maskserve.cluster.ray_setup import prepare_ray
prepare_ray()
ray.init("local", num_cpus=2, object_store_memory=150 * 2**20, include_dashboard=False,
         logging_level="ERROR", log_to_driver=False)
from maskserve.cli.main import main
main()
"""


def make_photos(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Write sound photos of different sizes, some in folders of folders, and all of BROKEN."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        size = generator.integers(40, 120, 2)
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        write_image(folder / f"{i % 3}" / f"{i % 2}" / f"{i:04}.png", pixels)
    for name, (content, _) in BROKEN.items():
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("no photo")
    return folder


def command(*arguments: object, on: str = "here") -> list[str]:
    """``maskserve predict --tables`` as a process; with ``ray``, on a small cluster of its own."""
    program = ["-c", _ON_RAY] if on == "ray" else ["-m", "maskserve"]
    return [sys.executable, *program, "predict", *map(str, arguments), "--tables", "--on", on]


def environment(home: Path) -> dict[str, str]:
    """In which nothing is written into the user's folders, and no other cluster is joined."""
    own = {"XDG_CACHE_HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    return dict(os.environ) | own


def rows_of(out: Path) -> tuple[list[Row], list[Row]]:
    """All rows of photos and of instances, in order."""
    photos: list[dict[str, Any]] = pq.read_table(out / "photos").to_pylist()
    instances: list[dict[str, Any]] = pq.read_table(out / "instances").to_pylist()
    return (
        sorted(photos, key=lambda row: row["photo_index"]),
        sorted(instances, key=lambda row: (row["photo_index"], row["instance"])),
    )
