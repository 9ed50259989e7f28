"""Working jobs off: one photo at a time, behind the photos of interactive requests.

Every process of a server has a worker, of which the one that holds the store's lock works and
the others wait for it to die. A job goes on at its first photo without a result.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice

from maskserve.api.answers import encode_masks, segment_body
from maskserve.api.jobs.photos import JobPhoto, picture_name, read_photos
from maskserve.api.jobs.schemas import JobQuery, PhotoErrorLine, PhotoResultLine
from maskserve.api.jobs.store import Job, JobStore
from maskserve.api.jobs.uploads import UploadLimits, upload_limits
from maskserve.api.problems import problem_body
from maskserve.api.services import Services
from maskserve.api.work import class_names, segmented
from maskserve.core.errors import (
    BundleError,
    ImageError,
    JobError,
    JobGoneError,
    JobStoreFullError,
    JobTooLargeError,
    MaskserveError,
    ParameterError,
    ServerNotReadyError,
    UnknownModelError,
)
from maskserve.runtime.image_io import encode_image
from maskserve.runtime.render import draw

__all__ = ["JobWorker"]

_POLL_S = 0.5
_TICK_S = 10
_AFTER_FAILURE_S = 5
_STOP_S = 20
_MOST_CRASHES = 3
"""A photo over which the process died so often is given up; the job, if that does not help."""

_log = logging.getLogger(__name__)


class _Leave(Exception):  # noqa: N818 - nothing went wrong
    """Work on this job ends for now; it goes on later, or was cancelled."""


class JobWorker:
    """Works off the jobs of a store, in a thread of its own.

    Args:
        services: Of the app.
        store: The app's jobs.
    """

    def __init__(self, services: Services, store: JobStore) -> None:
        self._services = services
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._ticked_s = time.monotonic()

    def start(self) -> None:
        """Begin; at the exit of the process the current photo is finished first."""
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Finish the current photo, then end; what is left goes on at the next start."""
        atexit.unregister(self.stop)
        self._stop.set()
        self._store.accepted.set()  # it may wait for this
        self._thread.join(_STOP_S)

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set() or self._services.draining.is_set()

    def _run(self) -> None:
        lock = self._store.worker_lock()
        while not lock.acquire():
            if self._stop.wait(_POLL_S):
                return
        self._ticked_s = time.monotonic()
        swept = False
        while not self._stopping:
            try:
                if not swept:
                    self._store.sweep()
                    swept = True
                if not self.work_one():
                    self._store.accepted.wait(_POLL_S)
                    self._store.accepted.clear()
            except Exception:
                _log.exception("working on jobs failed; trying again in %d s", _AFTER_FAILURE_S)
                self._stop.wait(_AFTER_FAILURE_S)
        lock.close()

    def _tick(self, *, at_once: bool = False) -> None:
        """Let time pass in the store, every few seconds."""
        elapsed_s = time.monotonic() - self._ticked_s
        if at_once or elapsed_s >= min(_TICK_S, self._store.limits.keep_s / 2):
            with suppress(JobStoreFullError):  # another time, when there is room
                self._store.tick(elapsed_s)
                self._ticked_s += elapsed_s

    # --- Jobs ------------------------------------------------------------------------------

    def work_one(self) -> bool:
        """Work on the first job that can be worked on, to its end; False if there is none."""
        self._tick()
        for job in self._store.unfinished():
            try:
                self._services.registry.get(job.model)
            except UnknownModelError as error:
                self._fail(job, error)
                return True
            except MaskserveError:
                continue  # still loading, or not to be loaded until the bundle is repaired
            begun = self._store.begin(job.id)
            if begun:
                self._work(begun)
            return True
        return False

    def _work(self, job: Job) -> None:
        crashes = job.attempts - 1
        if crashes > _MOST_CRASHES:
            self._fail(job, JobError(f"The server stopped {crashes} times at this job."))
            return
        try:
            self._work_photos(job)
        except _Leave:
            self._store.pause(job.id)
        except FileNotFoundError:  # cancelled, or somebody removed the files
            self._fail(job, JobGoneError("The photos of this job are gone from the job store."))
        except (JobError, ParameterError) as error:
            self._fail(job, error)
        else:
            self._finish(job)

    def _work_photos(self, job: Job) -> None:
        options = JobQuery.model_validate_json(job.options)
        limits = upload_limits(self._services.settings)
        position = job.done + job.failed
        photos = read_photos(
            self._store.uploads_folder(job.id),
            job.uploads,
            limits=limits,
            frame_step=options.frame_step,
        )
        for index, photo in enumerate(islice(photos, position, None), start=position):
            if self._stopping:
                raise _Leave
            _check_count(index, limits)
            crashed = index == position and job.attempts > _MOST_CRASHES
            line, picture = self._result(job, options, index, photo, crashed=crashed)
            self._put(job, line, picture)
            self._tick()

    def _fail(self, job: Job, error: MaskserveError) -> None:
        problem = problem_body(error, request_id=job.request_id)
        self._finish(job, error=problem.model_dump_json())

    def _finish(self, job: Job, *, error: str | None = None) -> None:
        self._tick(at_once=True)  # so that no time from before its end makes it older
        with suppress(_Leave):
            if self._once_there_is_room(job, partial(self._store.finish, job.id, error=error)):
                _log.info("job %s ended: %s", job.id, error or "done")

    # --- Photos ----------------------------------------------------------------------------

    def _result(
        self, job: Job, options: JobQuery, index: int, photo: JobPhoto, *, crashed: bool
    ) -> tuple[PhotoResultLine | PhotoErrorLine, bytes]:
        """A photo's line, and its picture where there is to be one."""
        try:
            if crashed:
                photo = replace(photo, read=partial(_refuse, job.attempts - 1))
            return self._segment(job, options, index, photo)
        except (UnknownModelError, ParameterError, JobError, FileNotFoundError):
            raise  # the same for every photo
        except (ServerNotReadyError, BundleError):
            raise _Leave from None  # its model is being replaced
        except Exception as error:
            problem = problem_body(error, request_id=job.request_id)
            line = PhotoErrorLine(
                index=index,
                file=photo.file,
                frame=photo.frame,
                time_s=photo.time_s,
                error=problem,
            )
            return line, b""

    def _segment(
        self, job: Job, options: JobQuery, index: int, photo: JobPhoto
    ) -> tuple[PhotoResultLine, bytes]:
        picture = b""
        with segmented(
            self._services,
            photo.read,
            model=job.model,
            min_score=options.min_score,
            classes=class_names(options.classes),
            max_instances=options.max_instances,
            background=True,
        ) as work:
            coverage = work.instances.coverage()
            if options.pictures:
                with work.stopwatch.stage("draw"):
                    drawn = draw(work.image, work.instances, style=options.style)
                    picture = encode_image(drawn, "image/jpeg")
            masks = encode_masks(work.instances, options.masks)
        body = segment_body(
            work.manifest,
            work.instances,
            coverage,
            masks=masks,
            drawn_jpeg=b"",
            stages_ms=work.stopwatch.spent_ms,
            request_id=job.request_id,
        )
        line = PhotoResultLine(
            index=index,
            file=photo.file,
            frame=photo.frame,
            time_s=photo.time_s,
            picture=picture_name(index, photo.file) if picture else None,
            **dict(body),
        )
        return line, picture

    def _put(self, job: Job, line: PhotoResultLine | PhotoErrorLine, picture: bytes) -> None:
        failed = isinstance(line, PhotoErrorLine)
        name = None if isinstance(line, PhotoErrorLine) else line.picture
        text = line.model_dump_json(by_alias=True, exclude_none=True)
        put = partial(
            self._store.put_result,
            job.id,
            text,
            failed=failed,
            picture=(name, picture) if name else None,
        )
        if not self._once_there_is_room(job, put):
            raise _Leave
        self._services.metrics.count_job_photo(failed=failed)

    def _once_there_is_room(self, job: Job, store: Callable[[], bool]) -> bool:
        """Store something; on a full disk, wait until there is room again."""
        while True:
            try:
                return store()
            except JobStoreFullError as error:
                if self._stopping:
                    raise _Leave from None
                _log.warning("job %s waits: %s", job.id, error)
                self._stop.wait(_AFTER_FAILURE_S)
                self._tick()


def _refuse(crashes: int) -> bytes:
    raise ImageError(f"The server stopped {crashes} times while it worked on this photo.")


def _check_count(index: int, limits: UploadLimits) -> None:
    if index >= limits.max_photos:
        raise JobTooLargeError(
            f"The video has more than the {limits.max_photos} frames that a job may have.",
            hint="Take fewer of them: frame_step=10.",
        )
