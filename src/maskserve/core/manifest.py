"""``manifest.json``: the contract between the side that trains and the side that serves.

A bundle is a folder, or a ``.zip`` of one, that holds ``model.onnx`` and ``manifest.json``.
The graph takes the resized photo and gives boxes, scores, classes and mask grids:

======================  =======  ==============  ===============================================
name                    dtype    shape           meaning
======================  =======  ==============  ===============================================
``image`` (input)       uint8    (1, H, W, 3)    the resized photo, RGB or BGR as the manifest says
``min_score`` (input)   float32  (1,)            weaker instances are dropped before the mask head
``boxes``               float32  (N, 4)          xyxy in pixels of the resized photo
``scores``              float32  (N,)            descending
``classes``             int64    (N,)            0-based class_index
``masks``               float32  (N, k, k)       probabilities, k = ``postprocess.mask_size``
======================  =======  ==============  ===============================================
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskserve.core.categories import Categories
from maskserve.core.errors import BundleCorruptError, BundleVersionError

__all__ = [
    "GRAPH_INPUTS",
    "GRAPH_OUTPUTS",
    "SCHEMA_VERSION",
    "Manifest",
    "Postprocess",
    "Preprocess",
    "Provenance",
]

SCHEMA_VERSION = 1
GRAPH_INPUTS = ("image", "min_score")
GRAPH_OUTPUTS = ("boxes", "scores", "classes", "masks")

Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocess(_Frozen):
    """From an upright RGB photo to the graph's ``image``; see ``runtime.preprocess``.

    Normalisation with ``mean`` and ``std`` (of pixel values 0..255) happens inside the graph;
    the values stand here for the record and for rebuilding the model.
    """

    channel_order: Literal["rgb", "bgr"] = "rgb"
    short_side_px: Annotated[int, Field(ge=32, le=4096)] = 640
    """The photo is scaled, up or down, until its shorter side has this length …"""
    max_side_px: Annotated[int, Field(ge=32, le=8192)] = 1333
    """… but no further than until its longer side has this one."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @model_validator(mode="after")
    def _sides_fit(self) -> Preprocess:
        if self.max_side_px < self.short_side_px:
            raise ValueError("max_side_px must not be smaller than short_side_px")
        return self


class Postprocess(_Frozen):
    """From the graph's outputs to instances."""

    min_score: Share = 0.5
    """Default confidence threshold, calibrated on photos that were not trained on."""
    max_instances: Annotated[int, Field(ge=1)] = 100
    """The graph never gives more than these."""
    mask_size: Annotated[int, Field(ge=1)] = 28
    mask_threshold: Share = 0.5


class Provenance(_Frozen):
    """Where the weights come from."""

    data: str
    """What it was trained on, in words."""
    initial_weights: str
    settings: dict[str, Any] = {}
    """The resolved settings of the run."""
    settings_sha256: str = ""
    seed: int | None = None
    trained_on: str = ""
    """Machine and time, in words."""


class Manifest(_Frozen):
    """Everything that serving needs to know about a model.

    Attributes:
        arithmetic: What it was measured with and is to be served in: ``f32``, or ``auto`` for the
            fastest that the CPU has, such as bfloat16.
        metrics: By data set name, then as in ``metrics.json``:
            ``{"balloon val": {"bbox": {"AP": …}, "segm": {…}}}``, 0..100.
        files: sha256 by file name, of every file of the bundle but the manifest.
        tool_versions: By package name, at export.
    """

    schema_version: int = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=64)]
    description: str = ""
    licence: str
    created: str
    backbone: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    category_ids: tuple[int, ...]
    preprocess: Preprocess = Preprocess()
    postprocess: Postprocess = Postprocess()
    arithmetic: Literal["auto", "f32"] = "auto"
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    provenance: Provenance
    tool_versions: dict[str, str] = {}
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @model_validator(mode="after")
    def _classes_fit(self) -> Manifest:
        Categories(self.classes, self.category_ids)
        return self

    @property
    def categories(self) -> Categories:
        return Categories(self.classes, self.category_ids)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> Manifest:
        """Parse and check a manifest.

        Args:
            text: Content of ``manifest.json``.
            where: The file's name for messages.

        Raises:
            BundleVersionError: The schema is newer than this maskserve understands.
            BundleCorruptError: It is not JSON, or a field is missing or not valid.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleCorruptError(f"{where} is not JSON: {error}") from None
        found = values.get("schema_version") if isinstance(values, dict) else None
        if isinstance(found, int) and found > SCHEMA_VERSION:
            raise BundleVersionError(
                f"{where} has schema version {found}; this maskserve reads up to {SCHEMA_VERSION}.",
                hint="Update maskserve, or export the model again with this version.",
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the document"
            raise BundleCorruptError(f"{where}: {field}: {first['msg']}.") from None
