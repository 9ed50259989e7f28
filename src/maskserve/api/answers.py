"""From instances and manifests to the bodies of answers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from maskserve.api.schemas import (
    CoverageBody,
    DrawnImageBody,
    InputBody,
    InstanceBody,
    MaskBody,
    MaskForm,
    ModelBody,
    ModelReferenceBody,
    RleBody,
    SegmentBody,
    SizeBody,
    TimingBody,
)
from maskserve.core.boxes import xyxy_to_xywh
from maskserve.core.manifest import Manifest
from maskserve.core.masks import union
from maskserve.core.types import Coverage, Instances, percent
from maskserve.runtime.contours import crop_to_polygons
from maskserve.runtime.image_io import encode_mask_png
from maskserve.runtime.render import colour_of

__all__ = ["encode_masks", "model_body", "segment_body"]


def segment_body(
    manifest: Manifest,
    instances: Instances,
    coverage: Coverage,
    *,
    masks: Sequence[MaskBody | None],
    drawn_jpeg: bytes,
    stages_ms: Mapping[str, float],
    request_id: str,
) -> SegmentBody:
    """The JSON answer.

    Args:
        masks: One for each instance, as :func:`encode_masks` makes them.
        drawn_jpeg: The drawn photo; empty if it was not asked for.
        stages_ms: Keyed by the fields of ``TimingBody``.
    """
    height, width = instances.image_size
    return SegmentBody(
        request_id=request_id,
        model=ModelReferenceBody(name=manifest.name, version=manifest.version),
        image=SizeBody(width=width, height=height),
        coverage=CoverageBody.model_validate(asdict(coverage)),
        instances=_instance_bodies(instances, masks),
        drawn_image=DrawnImageBody(media_type="image/jpeg", base64=_to_base64(drawn_jpeg))
        if drawn_jpeg
        else None,
        timing_ms=TimingBody(**{name: round(ms, 3) for name, ms in stages_ms.items()}),
    )


def model_body(manifest: Manifest) -> ModelBody:
    """What the API tells about a model."""
    return ModelBody(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        licence=manifest.licence,
        created=manifest.created,
        backbone=manifest.backbone,
        classes=list(manifest.classes),
        input=InputBody(
            short_side_px=manifest.preprocess.short_side_px,
            max_side_px=manifest.preprocess.max_side_px,
        ),
        min_score=manifest.postprocess.min_score,
        max_instances=manifest.postprocess.max_instances,
        metrics=manifest.metrics,
        trained_on=manifest.provenance.data,
    )


def encode_masks(instances: Instances, form: MaskForm) -> Sequence[MaskBody | None]:
    """Each instance's mask at the photo's size; None for ``none``."""
    match form:
        case "rle":
            return [RleBody.model_validate(rle) for rle in instances.rles()]
        case "polygon":
            return [[ring.tolist() for ring in crop_to_polygons(crop)] for crop in instances.crops]
        case "png":
            return [
                _to_base64(encode_mask_png(union([crop], instances.image_size)))
                for crop in instances.crops
            ]
        case "none":
            return [None] * len(instances)


def _instance_bodies(instances: Instances, masks: Sequence[MaskBody | None]) -> list[InstanceBody]:
    height, width = instances.image_size
    boxes_xywh = xyxy_to_xywh(instances.boxes_xyxy)
    bodies = []
    for i, (crop, mask) in enumerate(zip(instances.crops, masks, strict=True)):
        class_index = int(instances.class_indices[i])
        left, top, box_width, box_height = (round(float(value), 2) for value in boxes_xywh[i])
        bodies.append(
            InstanceBody(
                id=i,
                class_name=instances.class_names[class_index],
                class_index=class_index,
                score=round(float(instances.scores[i]), 4),
                colour="#{:02x}{:02x}{:02x}".format(*colour_of(i)),
                bbox_xywh=(left, top, box_width, box_height),
                area_px=crop.area_px,
                area_percent=percent(crop.area_px, height * width),
                mask=mask,
            )
        )
    return bodies


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
