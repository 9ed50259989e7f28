"""What goes in and out over HTTP about jobs, as pydantic models."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from maskserve.api.jobs.store import JobState
from maskserve.api.schemas import Body, Problem, SegmentBody, SegmentOptions, without_default

__all__ = [
    "JobBody",
    "JobLinks",
    "JobListBody",
    "JobPath",
    "JobPhotos",
    "JobQuery",
    "PhotoErrorLine",
    "PhotoLine",
    "PhotoResultLine",
    "ResultsQuery",
]

Count = Annotated[int, Field(ge=0)]
TimeOfDay = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class JobPath(Body):
    id: str
    """Of a job, as the answer to `POST /v1/jobs` gives it."""


class JobQuery(SegmentOptions):
    model: Annotated[str | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """Name of a model, as `GET /v1/models` lists it; the default model if left out."""
    pictures: bool = False
    """Whether to draw every photo, for `GET /v1/jobs/{id}/pictures`."""
    frame_step: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Of a video, each so-many-th frame; 1 takes all."""


class ResultsQuery(Body):
    start: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Leave out so many lines, which the client has already."""


class JobPhotos(Body):
    done: Count
    """Photos that were segmented."""
    failed: Count
    """Photos that could not be; each has a line of results that says why."""
    total: Annotated[Count | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """Photos and frames in all. Absent until a video whose header does not tell was read; headers
    of videos may be wrong by a few frames."""


class JobLinks(Body):
    self: str
    results: Annotated[str | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    pictures: Annotated[str | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """Only where pictures were asked for."""


class JobBody(Body):
    id: str
    state: JobState
    """`queued`, `running`, then `done`, `failed` or `cancelled`, and `expired` once the results
    of an ended job are no longer kept."""
    model: str
    photos: JobPhotos
    jobs_before: Annotated[
        Count | SkipJsonSchema[None], Field(json_schema_extra=without_default)
    ] = None
    """Of a queued job, how many will be worked off before it."""
    created_at: TimeOfDay
    started_at: Annotated[
        TimeOfDay | SkipJsonSchema[None], Field(json_schema_extra=without_default)
    ] = None
    finished_at: Annotated[
        TimeOfDay | SkipJsonSchema[None], Field(json_schema_extra=without_default)
    ] = None
    expires_at: Annotated[
        TimeOfDay | SkipJsonSchema[None], Field(json_schema_extra=without_default)
    ] = None
    """When an ended job's results will be removed, if the server runs until then."""
    error: Annotated[Problem | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = (
        None
    )
    """Why the job failed. What was done before is kept."""
    links: JobLinks


class JobListBody(Body):
    jobs: list[JobBody]
    """The newest first."""


class PhotoLine(Body):
    """What every line of results begins with."""

    index: Count
    """Position in the job, 0-based; lines come in this order."""
    file: str
    """Name of the photo as it was sent, with its folders in a ZIP; of a frame, the video's."""
    frame: Annotated[Count | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """Number of a frame in its video, 0-based."""
    time_s: Annotated[float | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """When in the video the frame is shown."""


class PhotoResultLine(SegmentBody, PhotoLine):
    """The answer of `POST /v1/segment` for one photo of a job."""

    model_config = ConfigDict(openapi_extra={})  # type: ignore[typeddict-unknown-key]

    picture: Annotated[str | SkipJsonSchema[None], Field(json_schema_extra=without_default)] = None
    """Name in the ZIP of pictures."""


class PhotoErrorLine(PhotoLine):
    """A photo of a job that could not be segmented."""

    error: Problem
