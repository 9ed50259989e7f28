"""What models are compared by, with words for people who do not know the terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskserve.evaluation.bootstrap import MetricName
from maskserve.evaluation.coco import Kind

__all__ = ["MEASURES", "Group", "Measure", "accuracy_key", "measures_of"]

Group = Literal["Accuracy", "Time", "Size"]


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that models are compared by.

    Attributes:
        key: For programs.
        title: For people, with the unit.
        group: Accuracies are compared by their difference, the others by their ratio.
        meaning: In a sentence, for people who do not know the terms.
        decimals: With which it is shown.
    """

    key: str
    title: str
    group: Group
    meaning: str
    decimals: int = 1


_KINDS: dict[Kind, str] = {"segm": "mask", "bbox": "box"}
_ACCURACIES: dict[MetricName, str] = {
    "AP": "Average precision, 0 to 100: how much of what is annotated was found, with how few "
    "mistakes, and how exactly. The mean over ten demands on exactness, from an overlap of 50 % "
    "to one of 95 %. COCO's main number.",
    "AP50": "The same if an overlap of 50 % is exact enough.",
    "APs": "AP of small instances only: up to 32² = 1024 pixels of the photo.",
    "APm": "AP of medium instances only: up to 96² = 9216 pixels.",
    "APl": "AP of large instances only: more than 96² pixels.",
}
_STAGES = {
    "decode": "From the bytes of a JPEG to pixels.",
    "preprocess": "Scaling the photo to the size that the network expects.",
    "network": "The neural network itself.",
    "paste": "From the network's small mask grids to masks in the photo.",
    "coverage": "Counting the pixels that the masks cover.",
    "draw": "Drawing the masks into the photo.",
    "encode": "From pixels to the bytes of a JPEG.",
    "total": "All of these together: bytes of a JPEG in, bytes of the drawn JPEG out.",
}

MEASURES: tuple[Measure, ...] = (
    *(
        Measure(
            f"{word}_{name}",
            f"{word} {name}",
            "Accuracy",
            meaning if word == "mask" else f"As mask {name}, but of the boxes around instances.",
        )
        for word in _KINDS.values()
        for name, meaning in _ACCURACIES.items()
    ),
    *(Measure(f"{stage}_ms", stage, "Time", text) for stage, text in _STAGES.items()),
    Measure(
        "peak_memory_mb",
        "peak memory, MB",
        "Size",
        "The most memory that a new process held which does nothing but load this model and send a "
        "few photos through all stages.",
        decimals=0,
    ),
    Measure(
        "base_memory_mb",
        "before loading, MB",
        "Size",
        "What that process held before it loaded the model: Python, libraries and one photo.",
        decimals=0,
    ),
    Measure("file_mb", "file, MB", "Size", "Size of model.onnx on disk."),
    Measure(
        "parameters_m",
        "parameters, M",
        "Size",
        "Millions of numbers in the network that training has chosen.",
        decimals=2,
    ),
    Measure(
        "gmacs",
        "GMACs",
        "Size",
        "Billions of multiply-accumulate operations for a photo; FLOPs are usually twice as many. "
        "Counted while the network looks at the photo of median size, in convolutions and matrix "
        "products, with the proposals and instances that it really had.",
    ),
)
"""In the order in which they are shown."""


def measures_of(group: Group) -> list[Measure]:
    """Those of a group."""
    return [measure for measure in MEASURES if measure.group == group]


def accuracy_key(kind: Kind, name: MetricName) -> str:
    """The :attr:`Measure.key` of an average precision of boxes or masks."""
    return f"{_KINDS[kind]}_{name}"
