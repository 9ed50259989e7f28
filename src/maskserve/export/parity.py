"""Does the exported graph answer like the network it was made from?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
        share: Of all instances on the probes, those that may differ by more. Where two boxes
            around one thing score almost alike, rounding decides which of them is kept; among
            dozens of instances that happens. With fewer than 20, none may differ.
    """

    box_px: float = 0.5
    score: float = 5e-3
    mask: float = 5e-3
    share: float = 0.05


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
    for index, photo in enumerate(photos):
        for name, probe in zip(names, probe_images(photo), strict=True):
            expected = reference.infer(probe, min_score=min_score)
            found = candidate.infer(probe, min_score=min_score)
            where = f"probe {index + 1}, {name}"
            if probe.min() == probe.max():
                _compare_best(expected, found, min_score, tolerance, where)
            else:
                matched, different = _compare(expected, found, min_score, tolerance)
                compared += matched
                expected_count += len(expected.scores)
                differences += [f"{where}: {difference}." for difference in different]
    if len(differences) > int(tolerance.share * expected_count):
        raise ParityError(
            differences[0],
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
) -> tuple[int, list[str]]:
    """How many instances are found again, and what differs, in words."""
    unmatched = set(range(len(found.scores)))
    certain = min_score + tolerance.score
    differences = []
    matched = 0
    for i, score in enumerate(expected.scores):
        j = _closest(expected, found, i, unmatched)
        if j is None or np.abs(expected.boxes_xyxy[i] - found.boxes_xyxy[j]).max() > (
            tolerance.box_px
        ):
            if score >= certain:
                differences.append(f"the instance of score {score:.3f} was not found")
            continue
        unmatched.remove(j)
        matched += 1
        mask_off = float(np.abs(expected.mask_grids[i] - found.mask_grids[j]).mean())
        if abs(float(score - found.scores[j])) > tolerance.score:
            differences.append(f"score {score:.4f} became {found.scores[j]:.4f}")
        elif mask_off > tolerance.mask:
            differences.append(f"a mask differs by {mask_off:.4f} on average")
    added = [j for j in unmatched if found.scores[j] >= certain]
    # Of two boxes that change places one is missing and one is added: that is one difference.
    differences += [
        f"an instance of score {found.scores[j]:.3f} was added" for j in added[len(differences) :]
    ]
    return matched, differences


def _closest(
    expected: RawDetections, found: RawDetections, i: int, unmatched: set[int]
) -> int | None:
    """The unmatched detection of the same class whose box is nearest."""
    candidates = [j for j in unmatched if found.class_indices[j] == expected.class_indices[i]]
    if not candidates:
        return None
    distances = np.abs(found.boxes_xyxy[candidates] - expected.boxes_xyxy[i]).max(axis=1)
    return candidates[int(distances.argmin())]
