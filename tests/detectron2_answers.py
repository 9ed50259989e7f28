"""Comparing answers with Detectron2's: from its files, or from Detectron2 itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskserve.core import Manifest, Preprocess, Provenance
from maskserve.core.manifest import Postprocess
from maskserve.models import InferenceNetwork, TorchEngine, load_detectron2
from maskserve.runtime.engine import Engine
from maskserve.runtime.predictor import EnginePredictor

BOX_PX = 0.5
SCORE = 1e-3
MASK_IOU = 0.99
MASK_PX = 1
"""So much may differ whatever the IoU is: of a mask of 50 pixels, one is more than a hundredth."""


@dataclass(frozen=True)
class Answer:
    """What was found in a photo, in its pixels; best score first."""

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]


@dataclass
class Difference:
    """The worst of what was compared."""

    instances: int = 0
    box_px: float = 0.0
    score: float = 0.0
    mask_iou: float = 1.0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.instances + other.instances,
            max(self.box_px, other.box_px),
            max(self.score, other.score),
            min(self.mask_iou, other.mask_iou),
        )


def compare(expected: Answer, found: Answer, *, min_score: float) -> Difference:
    """Match every instance, and fail where one is missing, added, or differs too much.

    Scores within ``SCORE`` of ``min_score`` may be on one side only.
    """
    left = list(range(len(found.scores)))
    worst = Difference()
    for i, score in enumerate(expected.scores):
        same = [j for j in left if found.classes[j] == expected.classes[i]]
        distances = [np.abs(found.boxes_xyxy[j] - expected.boxes_xyxy[i]).max() for j in same]
        if not same or min(distances) > BOX_PX:
            assert score < min_score + SCORE, f"the instance of score {score:.4f} is missing"
            continue
        j = same[int(np.argmin(distances))]
        left.remove(j)
        worst += Difference(
            1,
            float(min(distances)),
            abs(float(score - found.scores[j])),
            mask_iou(expected.masks[i], found.masks[j]),
        )
    for j in left:
        score = found.scores[j]
        assert score < min_score + SCORE, f"an instance of score {score:.4f} was added"
    assert worst.score <= SCORE, f"a score differs by {worst.score:.1e}"
    assert worst.mask_iou >= MASK_IOU, f"a mask has an IoU of {worst.mask_iou:.4f} only"
    return worst


def mask_iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """1 where the masks differ by no more than ``MASK_PX``."""
    differing = int(np.count_nonzero(one != other))
    return 1 - differing / int(np.count_nonzero(one | other)) if differing > MASK_PX else 1.0


def manifest_of(
    preprocess: Preprocess, postprocess: Postprocess, classes: tuple[str, ...]
) -> Manifest:
    """As little of a manifest as a predictor needs."""
    return Manifest(
        name="detectron2",
        version="1",
        licence="none",
        created="2026-01-01T00:00:00Z",
        backbone="resnet",
        classes=classes,
        category_ids=tuple(range(1, len(classes) + 1)),
        preprocess=preprocess,
        postprocess=postprocess,
        provenance=Provenance(data="none", initial_weights="none"),
        files={},
    )


def answer_of(
    engine: Engine, manifest: Manifest, photo: npt.NDArray[np.uint8], *, min_score: float
) -> Answer:
    """What an engine answers to an RGB photo, through all of serving but HTTP."""
    found = EnginePredictor(engine, manifest).predict(photo, min_score=min_score)
    return Answer(found.boxes_xyxy, found.scores, found.class_indices, found.masks)


def own_answer(
    config: Path, weights: Path, photo: npt.NDArray[np.uint8], *, min_score: float
) -> Answer:
    """What this package answers in torch with files of Detectron2."""
    loaded = load_detectron2(config, weights)
    manifest = manifest_of(loaded.preprocess, loaded.postprocess, loaded.classes)
    network = InferenceNetwork(loaded.model, max_instances=loaded.postprocess.max_instances)
    return answer_of(TorchEngine(network), manifest, photo, min_score=min_score)


def answer_from(instances: Any) -> Answer:
    """Detectron2's ``Instances`` as an answer."""
    return Answer(
        instances.pred_boxes.tensor.numpy(),
        instances.scores.numpy(),
        instances.pred_classes.numpy(),
        instances.pred_masks.numpy(),
    )
