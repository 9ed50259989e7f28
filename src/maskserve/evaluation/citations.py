"""Figures that others reported, to be shown beside one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskserve.core.errors import SettingsError
from maskserve.evaluation.bootstrap import RESAMPLED_NAMES, MetricName
from maskserve.evaluation.measures import accuracy_key
from maskserve.runtime.files import read_toml

__all__ = ["CitedModel", "read_citations"]

_Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True, slots=True)
class CitedModel:
    """Figures that somebody else reported.

    Attributes:
        name: Of the model.
        source: Where they stand.
        data: On which photos they were measured.
        values: By :attr:`Measure.key`; only accuracies.
    """

    name: str
    source: str
    data: str
    values: dict[str, float]

    @property
    def note(self) -> str:
        """A line for below a table."""
        return f"{self.name}: {self.source}, measured there on {self.data}."


def read_citations(path: Path) -> list[CitedModel]:
    """Read figures of others from a TOML file.

        [[model]]
        name = "ResNet-101, Detectron2"
        source = "https://example.org/their-report"
        data = "the 13 test photos"
        segm = {AP = 77.8, AP50 = 88.5, APm = 60.5, APl = 92.7}

    ``bbox`` may stand there, too; each has any of :data:`RESAMPLED_NAMES`, 0..100.

    Raises:
        SettingsError: The file cannot be read, or holds something else.
    """
    try:
        citations = _Citations.model_validate(read_toml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise SettingsError(
            f"{path}: {where}: {first['msg']}.",
            hint="Each [[model]] has name, source, data, and segm or bbox with "
            f"{', '.join(RESAMPLED_NAMES)}, 0..100.",
        ) from None
    return [
        CitedModel(
            cited.name,
            cited.source,
            cited.data,
            {accuracy_key("segm", name): value for name, value in cited.segm.items()}
            | {accuracy_key("bbox", name): value for name, value in cited.bbox.items()},
        )
        for cited in citations.model
    ]


class _Citation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    data: Annotated[str, Field(min_length=1)]
    segm: dict[MetricName, _Percent] = {}
    bbox: dict[MetricName, _Percent] = {}


class _Citations(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[list[_Citation], Field(min_length=1)]
