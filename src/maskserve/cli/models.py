"""``maskserve models``."""

from __future__ import annotations

from pathlib import Path

from rich.table import Column, Table

from maskserve.cli.report import make_console
from maskserve.core.manifest import Manifest

__all__ = ["models"]


def models() -> None:
    """List the models that come with maskserve.

    A name of this list is what --model takes; the path of a bundle of yours does as well.

    Examples:

        maskserve models
        maskserve predict photo.jpg --model balloon --out drawn
    """
    from maskserve.runtime.bundle import read_manifest, shipped_bundles

    table = Table(Column("name", no_wrap=True), "version", "finds", "input", "mask AP", "size")
    for path in shipped_bundles().values():
        manifest = read_manifest(path)
        table.add_row(
            manifest.name,
            manifest.version,
            ", ".join(manifest.classes),
            f"{manifest.preprocess.short_side_px} px",
            _mask_ap(manifest),
            _size(path),
        )
    console = make_console()
    if table.row_count:
        console.print(table)
    else:
        console.print("No model is shipped with this install; name the path of a bundle instead.")


def _mask_ap(manifest: Manifest) -> str:
    """Mask AP of each data set that the model was measured on."""
    return "\n".join(
        f"{metrics['segm']['AP']:.1f} ({dataset})"
        for dataset, metrics in manifest.metrics.items()
        if "AP" in metrics.get("segm", {})
    )


def _size(bundle: Path) -> str:
    size_bytes = sum(file.stat().st_size for file in bundle.iterdir() if file.is_file())
    return f"{size_bytes / 1e6:.1f} MB"
