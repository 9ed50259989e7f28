"""Bundles of models that were trained elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Literal

from torchvision.models.detection import MaskRCNN

from maskserve.core.categories import Categories
from maskserve.core.errors import ParameterError
from maskserve.core.manifest import Manifest, Postprocess, Preprocess, Provenance
from maskserve.core.predictor import Image
from maskserve.datasets.balloon_photo import render_balloon_photo
from maskserve.datasets.synthetic import render_balloons
from maskserve.export.bundle import WrittenBundle, require_free_place, write_bundle
from maskserve.export.graph import Precision
from maskserve.models import load_detectron2
from maskserve.models.torchvision_zoo import COCO, load_torchvision
from maskserve.runtime.image_io import read_image

__all__ = ["ImportOptions", "Imported", "import_detectron2", "import_torchvision"]

_RENDERED_SIZE = (480, 640)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the caller may say of a model beyond its files.

    Attributes:
        name: In the API; by default that of the bundle's file.
        description: One sentence for the API's list of models.
        licence: SPDX identifier of the weights' licence, or words.
        min_score: Default threshold of the bundle; by default the model's own.
        photos: To compare answers by; rendered scenes if there are none.
        precision: How weights are stored; ``f32`` keeps every digit.
        arithmetic: How the bundle is to be served; only ``f32`` keeps the model's answers.
        on_step: Is told what is being done, in words.
    """

    name: str | None = None
    description: str = ""
    licence: str = "unknown"
    min_score: float | None = None
    photos: tuple[Path, ...] = ()
    precision: Precision = "f32"
    arithmetic: Literal["auto", "f32"] = "f32"
    on_step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that was imported.

    Attributes:
        bundle: What was written.
        named: Whether the names of its classes are known; numbers stand in if not.
    """

    bundle: WrittenBundle
    named: bool


def import_detectron2(
    config: Path,
    weights: Path,
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    options: ImportOptions = ImportOptions(),
) -> Imported:
    """Write a Mask R-CNN that Detectron2 trained as a bundle.

    Args:
        config: Its ``.yaml``.
        weights: Its ``.pth`` or ``.pkl``.
        out: The bundle: a folder, or a file that ends in ``.zip``.
        classes: See :func:`maskserve.models.load_detectron2`.
        options: What else is known.

    Raises:
        SettingsError: The config cannot be read, or describes something that is not supported.
        ParameterError: The checkpoint cannot be read or does not belong to the config, or a name
            or the number of classes is not valid.
        ImageError: A photo cannot be read.
        ParityError: The graph answers differently.
        ExportError: The graph cannot be made, or ``out`` is something else than a bundle.
        OutputError: ``out`` cannot be written.
    """
    require_free_place(out)
    options.on_step(f"Reading {weights.name}")
    found = load_detectron2(config, weights, classes=classes)
    is_coco = found.classes == COCO.names
    bundle = _write(
        found.model,
        out,
        options,
        backbone=found.backbone,
        categories=COCO if is_coco else Categories.from_names(found.classes),
        preprocess=found.preprocess,
        postprocess=found.postprocess,
        provenance=Provenance(
            data=", ".join(found.config.datasets) or "unknown",
            initial_weights=f"Detectron2's {weights.name}, {_digest(weights)}",
            settings={"design": asdict(found.config.design)},
        ),
    )
    return Imported(bundle, named=not found.classes_from.startswith("numbered"))


def import_torchvision(
    model: str,
    out: Path,
    *,
    weights: Path | None = None,
    classes: Sequence[str] | None = None,
    progress: bool = False,
    options: ImportOptions = ImportOptions(),
) -> Imported:
    """Write a Mask R-CNN of torchvision as a bundle.

    Args:
        model: Its name; see :data:`maskserve.models.torchvision_zoo.TORCHVISION_MODELS`.
        out: The bundle: a folder, or a file that ends in ``.zip``.
        weights: A checkpoint; by default torchvision's COCO weights.
        classes: See :func:`maskserve.models.torchvision_zoo.load_torchvision`.
        progress: Whether torchvision shows its download on stderr.
        options: What else is known.

    Raises:
        ParameterError: There is no such model, the checkpoint cannot be read or is of another
            one, or a name or the number of classes is not valid.
        DownloadError: The weights cannot be downloaded.
        ImageError: A photo cannot be read.
        ParityError: The graph answers differently.
        ExportError: The graph cannot be made, or ``out`` is something else than a bundle.
        OutputError: ``out`` cannot be written.
    """
    require_free_place(out)
    options.on_step(f"Reading {weights.name if weights else model}")
    found = load_torchvision(model, weights, classes=classes, progress=progress)
    is_published = weights is None
    bundle = _write(
        found.model,
        out,
        options,
        backbone="resnet50",
        categories=found.categories,
        preprocess=found.preprocess,
        postprocess=found.postprocess,
        provenance=Provenance(
            data="COCO 2017" if is_published else "unknown",
            initial_weights=found.weights + (f", {_digest(weights)}" if weights else ""),
            settings={"torchvision": model},
        ),
    )
    return Imported(bundle, named=found.classes_from != "numbered")


def _write(
    model: MaskRCNN,
    out: Path,
    options: ImportOptions,
    *,
    backbone: str,
    categories: Categories,
    preprocess: Preprocess,
    postprocess: Postprocess,
    provenance: Provenance,
) -> WrittenBundle:
    now = datetime.now(UTC)
    if options.min_score is not None:
        if not 0 <= options.min_score <= 1:
            raise ParameterError(f"The threshold {options.min_score} does not lie in 0..1.")
        postprocess = postprocess.model_copy(update={"min_score": options.min_score})
    manifest = Manifest(
        name=_name_of(out),
        version=now.strftime("%Y.%m.%d"),
        description=options.description,
        licence=options.licence,
        created=now.isoformat(timespec="seconds"),
        backbone=backbone,
        classes=categories.names,
        category_ids=categories.category_ids,
        preprocess=preprocess,
        postprocess=postprocess,
        arithmetic=options.arithmetic,
        provenance=provenance,
        files={},
    )
    return write_bundle(
        model,
        manifest,
        out,
        name=options.name,
        probes=[read_image(photo) for photo in options.photos] or _rendered(),
        precision=options.precision,
        on_step=options.on_step,
    )


def _name_of(out: Path) -> str:
    """A valid name of a model, as near to the bundle's as can be."""
    stem = out.stem if out.suffix == ".zip" else out.name
    name = re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).lstrip("_.-")
    return name[:64] or "model"


def _rendered() -> list[Image]:
    """Scenes with many outlines, for want of photos that show what the model looks for."""
    render = (render_balloons, render_balloon_photo)
    return [draw(size=_RENDERED_SIZE, count=8, seed=1)[0] for draw in render]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256 {file_digest(file, 'sha256').hexdigest()}"
