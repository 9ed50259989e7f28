"""What goes in and out over HTTP, as pydantic models: the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from maskserve.runtime.render import Style

__all__ = [
    "Body",
    "ClassCoverageBody",
    "CoverageBody",
    "DrawnImageBody",
    "InputBody",
    "InstanceBody",
    "MaskBody",
    "MaskForm",
    "ModelBody",
    "ModelListBody",
    "ModelPath",
    "ModelReferenceBody",
    "Problem",
    "ReadinessBody",
    "RleBody",
    "SegmentBody",
    "SegmentOptions",
    "SegmentQuery",
    "SizeBody",
    "StatusBody",
    "TimingBody",
    "without_default",
]

MaskForm = Literal["rle", "polygon", "png", "none"]

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Pixels = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0)]


def without_default(schema: dict[str, Any]) -> None:
    """Absence is the default of an optional field; JSON Schema would say ``null``."""
    schema.pop("default", None)


class Body(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,  # they become the document's descriptions
        validate_by_name=True,
        validate_by_alias=True,
    )


class ModelPath(Body):
    name: str
    """Name of a model, as `GET /v1/models` lists it."""


class SegmentOptions(Body):
    """Parameters of everything that segments."""

    min_score: Annotated[Share | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = (
        None
    )
    """Confidence threshold; the model's calibrated one by default."""
    classes: Annotated[str | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """Names of classes, separated by commas; all by default. The coverage counts these only."""
    max_instances: Annotated[
        Annotated[int, Field(ge=1)] | SkipJsonSchema[None],
        Field(json_schema_extra=without_default),
    ] = None
    """At most so many instances, the best; the coverage counts these only."""
    masks: MaskForm = "rle"
    """`rle`: COCO's compressed run-length encoding; `polygon`: rings of `[x, y]`, with holes
    filled; `png`: base64 of a PNG with one channel; `none`: without masks."""
    style: Style = "overlay"
    """How the photo is drawn. `splash` keeps colour inside the masks only; `mask` is white on
    black."""


class SegmentQuery(SegmentOptions):
    include: Annotated[
        Literal["image"] | SkipJsonSchema[None], Field(json_schema_extra=without_default)
    ] = None
    """`image` adds the drawn photo to the JSON."""


class ModelReferenceBody(Body):
    name: str
    version: str


class SizeBody(Body):
    """Of the upright photo: EXIF orientation is applied."""

    width: Pixels
    height: Pixels


class ClassCoverageBody(Body):
    masked_px: Pixels
    masked_percent: Percent


class CoverageBody(Body):
    """Overlaps count once; `masked_px + unmasked_px = total_px = width × height`."""

    masked_px: Pixels
    unmasked_px: Pixels
    total_px: Pixels
    masked_percent: Percent
    unmasked_percent: Percent
    per_class: dict[str, ClassCoverageBody]
    """Every class of the model, also where nothing was found."""


class RleBody(Body):
    """COCO's compressed run-length encoding, as pycocotools reads it."""

    size: tuple[int, int]
    """Height and width."""
    counts: str


MaskBody = RleBody | list[list[tuple[float, float]]] | str
"""Compressed RLE, polygons, or a PNG in base64."""


class InstanceBody(Body):
    id: int
    """Position in the list; 0 is the best score."""
    class_name: Annotated[str, Field(alias="class")]
    class_index: Annotated[int, Field(ge=0)]
    score: Share
    colour: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
    """In the drawn photo."""
    bbox_xywh: tuple[float, float, float, float]
    """Left, top, width and height in pixels of the upright photo."""
    area_px: Pixels
    area_percent: Percent
    mask: Annotated[
        MaskBody | SkipJsonSchema[None],
        Field(json_schema_extra=without_default),
    ] = None
    """In the form that `masks` asked for; absent for `none`."""


class DrawnImageBody(Body):
    media_type: Literal["image/jpeg"]
    base64: str


class TimingBody(Body):
    decode: Milliseconds
    queue: Milliseconds
    """Waiting for the network."""
    infer: Milliseconds
    """Resizing and the network."""
    paste: Milliseconds
    """Stretching masks to the photo's size."""
    draw: Milliseconds
    """0 if no drawn photo was asked for."""
    total: Milliseconds
    """All of the above, and counting and encoding masks."""


class SegmentBody(Body):
    model_config = ConfigDict(
        openapi_extra={  # type: ignore[typeddict-unknown-key]  # of flask-openapi3
            "description": "JSON, or the drawn photo where `Accept` prefers an image.",
            "headers": {
                "X-Request-Id": {"schema": {"type": "string"}},
                **{
                    name: {"schema": {"type": kind}, "description": "With a drawn photo only."}
                    for name, kind in (
                        ("X-Masked-Percent", "number"),
                        ("X-Unmasked-Percent", "number"),
                        ("X-Instance-Count", "integer"),
                    )
                },
            },
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in ("image/png", "image/jpeg")
            },
        }
    )

    request_id: str
    model: ModelReferenceBody
    image: SizeBody
    coverage: CoverageBody
    instances: list[InstanceBody]
    drawn_image: Annotated[
        DrawnImageBody | SkipJsonSchema[None], Field(json_schema_extra=without_default)
    ] = None
    """Only with `include=image`."""
    timing_ms: TimingBody


class InputBody(Body):
    """What the network sees: the photo is scaled until its shorter side has
    `short_side_px`, but its longer side no more than `max_side_px`."""

    short_side_px: Pixels
    max_side_px: Pixels


class ModelBody(Body):
    name: str
    version: str
    description: str
    licence: str
    created: str
    backbone: str
    classes: list[str]
    input: InputBody
    min_score: Share
    """Used where a request names none."""
    max_instances: Annotated[int, Field(ge=1)]
    metrics: dict[str, dict[str, dict[str, float]]]
    """COCO's average precision, 0..100, by data set and kind (`bbox`, `segm`)."""
    trained_on: str
    """The data, in words."""


class ModelListBody(Body):
    default: str
    """The model that `POST /v1/segment` uses."""
    models: list[ModelBody]


class StatusBody(Body):
    status: Literal["ok"]


class ReadinessBody(Body):
    status: Literal["ready"]
    models: list[str]


class Problem(Body):
    """RFC 9457 problem details."""

    type: str
    title: str
    """Short summary of the kind of error; the same for every occurrence."""
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    """What was wrong here, and what to do about it."""
    code: str
    """Stable identifier for programs."""
    instance: str
    """Identifies this occurrence; ends in the request's id."""
