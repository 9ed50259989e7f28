"""The routes of jobs: many photos in one request, worked off in the background."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from time import localtime, time
from typing import Any
from zipfile import ZipFile, ZipInfo

from flask import Response, g, request, url_for
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from maskserve.api.jobs.schemas import (
    JobBody,
    JobLinks,
    JobListBody,
    JobPath,
    JobPhotos,
    JobQuery,
    ResultsQuery,
)
from maskserve.api.jobs.store import Job, JobStore
from maskserve.api.jobs.uploads import (
    FIELD,
    RAW_MEDIA_TYPES,
    announced_size,
    receive,
    upload_limits,
)
from maskserve.api.problems import ALWAYS_POSSIBLE, describe_problems, refuse_repeated
from maskserve.api.request import Request
from maskserve.api.schemas import Problem
from maskserve.api.services import current_services
from maskserve.api.work import class_names
from maskserve.core.errors import JobGoneError, JobsOffError, NoPicturesError, UnknownJobError

__all__ = ["blueprint"]

JSON = "application/json"
JSON_LINES = "application/jsonl"
ZIP = "application/zip"

_BYTES_OF_A_LINE = 32 * 1024
"""What a photo's line of results is likely to take at most."""

_TAG = Tag(
    name="Jobs",
    description="Many photos in one request, worked off behind the photos of other requests. "
    "Only where the server was started with a folder for them (setting `jobs_dir`).",
)
_NO_SUCH_JOB = describe_problems(HTTPStatus.NOT_FOUND)
_GONE = describe_problems(HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_BINARY = {"type": "string", "format": "binary"}
_REQUEST_BODY: dict[str, Any] = {
    "description": "Photos (JPEG, PNG, WebP), ZIP files of them, or videos.",
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {FIELD: {"type": "array", "items": _BINARY, "minItems": 1}},
                "required": [FIELD],
                "additionalProperties": False,
            }
        },
        **{media_type: {"schema": _BINARY} for media_type in RAW_MEDIA_TYPES},
    },
}

blueprint = APIBlueprint(
    "jobs",
    __name__,
    url_prefix="/v1",
    abp_tags=[_TAG],
    abp_responses=describe_problems(*ALWAYS_POSSIBLE),
)


@blueprint.post(
    "/jobs",
    operation_id="create_job",
    summary="Segment many photos, later",
    description="Send photos as fields `images` of a form, or a ZIP or a video as the body. The "
    "answer comes once all is kept safely; poll the address in `Location` until `state` is "
    "neither `queued` nor `running`. A photo that cannot be read gets a line of results that "
    "says so, and does not stop the job.",
    openapi_extensions={"requestBody": _REQUEST_BODY},
    responses={
        HTTPStatus.ACCEPTED: JobBody,
        **describe_problems(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.SERVICE_UNAVAILABLE,
            HTTPStatus.INSUFFICIENT_STORAGE,
        ),
    },
)
def create_job(query: JobQuery) -> Response:
    store = _store()
    services = current_services()
    refuse_repeated()
    limits = upload_limits(services.settings)
    model = services.registry.names[0] if query.model is None else query.model
    categories = services.registry.get(model).manifest.categories
    for name in class_names(query.classes) or ():
        categories.index_of(name)
    sent = _request()
    size = announced_size(sent, limits)
    with store.receiving(size) as job_id:
        uploads = receive(sent, store.uploads_folder(job_id), limits, frame_step=query.frame_step)
        counts = [upload.count for upload in uploads if upload.count is not None]
        total = sum(counts) if len(counts) == len(uploads) else None
        job = store.accept(
            job_id,
            uploads,
            model=model,
            options=query.model_dump_json(),
            total=total,
            expected_bytes=(total or 0) * _BYTES_OF_A_LINE + size * query.pictures,
            request_id=g.request_id,
            owner=_owner(),
        )
    body = _job_body(store, job)
    response = _to_json(body)
    response.status_code = HTTPStatus.ACCEPTED
    response.headers["Location"] = body.links.self
    return response


@blueprint.get(
    "/jobs",
    operation_id="list_jobs",
    summary="List the jobs",
    description="Where the server asks for API keys, those that came with the same key.",
    responses={HTTPStatus.OK: JobListBody, **_NO_SUCH_JOB},
)
def list_jobs() -> Response:
    store = _store()
    jobs = [_job_body(store, job) for job in store.jobs() if job.owner == _owner()]
    return _to_json(JobListBody(jobs=jobs))


@blueprint.get(
    "/jobs/<id>",
    operation_id="describe_job",
    summary="Describe a job",
    responses={HTTPStatus.OK: JobBody, **_NO_SUCH_JOB},
)
def describe_job(path: JobPath) -> Response:
    store = _store()
    return _to_json(_job_body(store, _job(store, path)))


@blueprint.delete(
    "/jobs/<id>",
    operation_id="delete_job",
    summary="Cancel or remove a job",
    description="Photos, results and pictures are removed at once. A job that was not finished "
    "stays in the list as `cancelled`; one that was is forgotten.",
    responses={HTTPStatus.NO_CONTENT: {"description": "Done."}, **_NO_SUCH_JOB},
)
def delete_job(path: JobPath) -> Response:
    store = _store()
    store.cancel(_job(store, path).id)
    return Response(status=HTTPStatus.NO_CONTENT)


@blueprint.get(
    "/jobs/<id>/results",
    operation_id="get_job_results",
    summary="Results as JSON lines",
    description="One line for each photo or frame that is worked off, in order, also while the "
    "job runs: what `POST /v1/segment` answers, with `index` and `file`; or `index`, `file` and "
    "`error`, a problem.",
    responses={
        HTTPStatus.OK: {
            "description": "JSON lines.",
            "content": {JSON_LINES: {"schema": {"type": "string"}}},
        },
        **_GONE,
    },
)
def get_job_results(path: JobPath, query: ResultsQuery) -> Response:
    store = _store()
    job = _kept_job(store, path)
    lines = (f"{line}\n".encode() for line in store.lines(job.id, start=query.start))
    return Response(_request().in_parts(lines), mimetype=JSON_LINES)


@blueprint.get(
    "/jobs/<id>/pictures",
    operation_id="get_job_pictures",
    summary="The drawn photos as a ZIP",
    description="Of a job that was sent with `pictures=true`. While the job runs, those that are "
    "drawn already. Results name each picture.",
    responses={
        HTTPStatus.OK: {
            "description": "A ZIP of JPEGs.",
            "content": {ZIP: {"schema": _BINARY}},
        },
        **_GONE,
    },
)
def get_job_pictures(path: JobPath) -> Response:
    store = _store()
    job = _kept_job(store, path)
    if not _has_pictures(job):
        raise NoPicturesError(
            "No pictures are drawn for this job.", hint="Send it again with ?pictures=true."
        )
    parts = _zip(store.pictures(job.id))
    response = Response(_request().in_parts(parts), mimetype=ZIP)
    response.headers["Content-Disposition"] = f'attachment; filename="{job.id}.zip"'
    return response


def _store() -> JobStore:
    store = current_services().jobs
    if store is None:
        raise JobsOffError(
            "This server was started without a folder to keep jobs in.",
            hint="Whoever runs it can name one: maskserve serve --jobs-dir FOLDER.",
        )
    return store


def _request() -> Request:
    """The current request itself, which outlives the route while its answer is sent."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    return current


def _owner() -> str:
    """The name of the API key that came with the request; empty where none is asked for."""
    return str(g.fields.get("key", ""))


def _job(store: JobStore, path: JobPath) -> Job:
    """A job that whoever asks may know of."""
    job = store.get(path.id)
    if job.owner != _owner():
        raise UnknownJobError(f"There is no job “{path.id[:40]}” of this API key.")
    return job


def _kept_job(store: JobStore, path: JobPath) -> Job:
    job = _job(store, path)
    if job.state in ("cancelled", "expired"):
        raise JobGoneError(f"This job is {job.state}: its results are no longer kept.")
    return job


def _has_pictures(job: Job) -> bool:
    return JobQuery.model_validate_json(job.options).pictures


def _job_body(store: JobStore, job: Job) -> JobBody:
    kept = job.state not in ("cancelled", "expired")
    expires_at = None
    if job.state in ("done", "failed"):
        expires_at = time() + store.limits.keep_s - job.kept_s
    return JobBody(
        id=job.id,
        state=job.state,
        model=job.model,
        photos=JobPhotos(done=job.done, failed=job.failed, total=job.total),
        jobs_before=store.jobs_before(job) if job.state == "queued" else None,
        created_at=_time_of_day(job.created_at),
        started_at=None if job.started_at is None else _time_of_day(job.started_at),
        finished_at=None if job.finished_at is None else _time_of_day(job.finished_at),
        expires_at=None if expires_at is None else _time_of_day(expires_at),
        error=None if job.error is None else Problem.model_validate_json(job.error),
        links=JobLinks(
            self=url_for(".describe_job", id=job.id),
            results=url_for(".get_job_results", id=job.id) if kept else None,
            pictures=url_for(".get_job_pictures", id=job.id)
            if kept and _has_pictures(job)
            else None,
        ),
    )


def _time_of_day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class _Buffer:
    """A file that can only be written to, from which what was written is taken."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def close(self) -> None:
        """It goes on to hold what was written."""

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def _zip(files: Iterator[tuple[str, Path]]) -> Iterator[bytes]:
    """A ZIP, file by file; JPEGs are not compressed once more."""
    buffer = _Buffer()
    with ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            try:
                content = path.read_bytes()
                drawn_at = localtime(path.stat().st_mtime)[:6]
            except FileNotFoundError:  # the job was removed
                continue
            archive.writestr(ZipInfo(name, drawn_at), content)
            yield buffer.take()
    yield buffer.take()


def _to_json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(by_alias=True, exclude_none=True), mimetype=JSON)
