"""Does the exported graph answer like the network it was made from?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from maskserve.core.errors import ParityError
from maskserve.core.predictor import Image
from maskserve.runtime.engine import Engine, RawDetections

__all__ = ["TOLERANCE", "Tolerance", "check_parity", "probe_images"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two engines may differ, both in float32, weights of one stored in half precision.

    Attributes:
        box_px: Corner coordinates, pixels of the resized photo.
        score: Scores.
        mask: Mean over a grid's cells of the probability's difference.
        share: Of all instances on the probes, those that may differ by more. With fewer than 20,
            none may differ.
        tie_iou: With which another box around one thing counts as a tie, if its class is the same
            and its score within ``score``: of two boxes that score almost alike, rounding decides
            which is kept, and with voting also which boxes count in its mean.
        tie_share: As ``share``, of ties and other differences together.
    """

    box_px: float = 0.5
    score: float = 5e-3
    mask: float = 5e-3
    share: float = 0.05
    tie_iou: float = 0.8
    tie_share: float = 0.1


TOLERANCE = Tolerance()


def probe_images(photo: Image) -> list[Image]:
    """A normal photo, an empty one, a very wide one, and the normal one again.

    The last one finds graphs and engines that remember something of earlier photos.

    Args:
        photo: uint8, (h, w, 3), already resized, with objects in it.
    """
    height, width = photo.shape[:2]
    grey = np.full((height, width, 3), 128, dtype=np.uint8)
    wide = np.concatenate([photo[: max(height // 5, 1)]] * 2, axis=1)
    return [photo, grey, wide, photo]


def check_parity(
    reference: Engine,
    candidate: Engine,
    photos: Sequence[Image],
    *,
    min_score: float = 0.05,
    tolerance: Tolerance = TOLERANCE,
) -> int:
    """Compare two engines on :func:`probe_images` of each photo.

    Detections whose score is within the tolerance of ``min_score`` may be missing on one side.
    On the empty photo only the best score is compared: where every place looks the same, many
    score the same, and rounding decides which of them are given.

    Returns:
        Number of instances that were compared.

    Raises:
        ParityError: Says on which probe what differs by how much.
    """
    names = ("photo", "empty photo", "wide photo", "photo again")
    compared = expected_count = 0
    differences: list[str] = []
    ties: list[str] = []
    for index, photo in enumerate(photos):
        for name, probe in zip(names, probe_images(photo), strict=True):
            expected = reference.infer(probe, min_score=min_score)
            found = candidate.infer(probe, min_score=min_score)
            where = f"probe {index + 1}, {name}"
            if probe.min() == probe.max():
                _compare_best(expected, found, min_score, tolerance, where)
            else:
                matched, different, tied = _compare(expected, found, min_score, tolerance)
                compared += matched
                expected_count += len(expected.scores)
                differences += [f"{where}: {difference}." for difference in different]
                ties += [f"{where}: {tie}." for tie in tied]
    if len(differences) > int(tolerance.share * expected_count) or (
        len(differences) + len(ties) > int(tolerance.tie_share * expected_count)
    ):
        raise ParityError(
            (differences + ties)[0],
            hint="A model that was hardly trained scores everything alike, so that rounding "
            "decides what is found: train it longer, or export with --precision f32.",
        )
    return compared


def _compare_best(
    expected: RawDetections,
    found: RawDetections,
    min_score: float,
    tolerance: Tolerance,
    where: str,
) -> None:
    best, found_best = (float(raw.scores.max(initial=min_score)) for raw in (expected, found))
    if abs(best - found_best) > tolerance.score:
        raise ParityError(f"{where}: the best score {best:.4f} became {found_best:.4f}.")


def _compare(
    expected: RawDetections,
    found: RawDetections,
    min_score: float,
    tolerance: Tolerance,
) -> tuple[int, list[str], list[str]]:
    """How many instances are found again; what differs, and which boxes tie, in words."""
    unmatched = set(range(len(found.scores)))
    certain = min_score + tolerance.score
    differences, ties = [], []
    missing = []
    for i in range(len(expected.scores)):
        j = _closest(expected, found, i, unmatched)
        if j is None or np.abs(expected.boxes_xyxy[i] - found.boxes_xyxy[j]).max() > (
            tolerance.box_px
        ):
            missing.append(i)
            continue
        unmatched.remove(j)
        differences += _difference(expected, i, found, j, tolerance)
    matched = len(expected.scores) - len(missing)
    lost = 0
    for i in missing:
        score = float(expected.scores[i])
        tie = _tied(expected, found, i, unmatched, tolerance)
        if tie is not None:
            unmatched.remove(tie[0])
            ties.append(f"the box of score {score:.3f} became another one, of IoU {tie[1]:.2f}")
        elif score >= certain:
            lost += 1
            differences.append(f"the instance of score {score:.3f} was not found")
    added = [j for j in unmatched if found.scores[j] >= certain]
    # Of two boxes that change places one is missing and one is added: that is one difference.
    differences += [f"an instance of score {found.scores[j]:.3f} was added" for j in added[lost:]]
    return matched, differences, ties


def _difference(
    expected: RawDetections, i: int, found: RawDetections, j: int, tolerance: Tolerance
) -> list[str]:
    """What differs between two detections of one box, in words: nothing, or one thing."""
    score, found_score = float(expected.scores[i]), float(found.scores[j])
    if abs(score - found_score) > tolerance.score:
        return [f"score {score:.4f} became {found_score:.4f}"]
    mask_off = float(np.abs(expected.mask_grids[i] - found.mask_grids[j]).mean())
    return [f"a mask differs by {mask_off:.4f} on average"] if mask_off > tolerance.mask else []


def _tied(
    expected: RawDetections,
    found: RawDetections,
    i: int,
    unmatched: set[int],
    tolerance: Tolerance,
) -> tuple[int, float] | None:
    """The unmatched detection that may stand for another, and its IoU."""
    candidates = [
        j
        for j in unmatched
        if found.class_indices[j] == expected.class_indices[i]
        and abs(float(found.scores[j] - expected.scores[i])) <= tolerance.score
    ]
    if not candidates:
        return None
    boxes = (expected.boxes_xyxy[i : i + 1], found.boxes_xyxy[candidates])
    ious = box_iou(*(torch.from_numpy(box) for box in boxes))[0]
    best = int(ious.argmax())
    iou = float(ious[best])
    return (candidates[best], iou) if iou >= tolerance.tie_iou else None


def _closest(
    expected: RawDetections, found: RawDetections, i: int, unmatched: set[int]
) -> int | None:
    """The unmatched detection of the same class whose box is nearest."""
    candidates = [j for j in unmatched if found.class_indices[j] == expected.class_indices[i]]
    if not candidates:
        return None
    distances = np.abs(found.boxes_xyxy[candidates] - expected.boxes_xyxy[i]).max(axis=1)
    return candidates[int(distances.argmin())]
