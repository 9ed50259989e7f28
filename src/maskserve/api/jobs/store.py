"""Jobs and their results on disk, bounded, such that no crash loses what was accepted.

SQLite of the standard library, and no queue made of it: huey deletes a task as it hands it out,
so a killed process loses it, and neither persist-queue (which asks for its items back by hand
and pickles them) nor diskcache (a cache, pickles) knows states, results or cancelling. What
jobs need is two tables, whose transactions work across processes, and a lock that the system
releases when its holder dies, which SQLite has too.

The folder holds::

    jobs.sqlite             every job, and every line of results
    jobs/ID/uploads/        what was sent, until the job ends
    jobs/ID/pictures/       drawn photos, until the job is removed
    locks/                  held by the process that works, and by each that receives

The database decides: a job exists once its row is committed as ``queued``, after its files were
synced, and a photo is done once its line is committed. Files that no row accounts for are
removed when a process begins to work (:meth:`JobStore.sweep`). A row comes before its files.

**Clocks.** How long an ended job is kept is counted while a server runs, by its monotonic clock,
and added up in the database; the time of day is only shown. So a clock that jumps, either way,
neither removes a job early nor keeps it forever; time in which no server runs does not count.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from maskserve.core.errors import (
    JobStoreFullError,
    JobTooLargeError,
    SettingsError,
    UnknownJobError,
)

__all__ = [
    "STATES",
    "UNFINISHED",
    "Job",
    "JobState",
    "JobStore",
    "ProcessLock",
    "StoreLimits",
    "Upload",
    "UploadKind",
]

JobState = Literal["queued", "running", "done", "failed", "cancelled", "expired"]
STATES: tuple[JobState, ...] = ("queued", "running", "done", "failed", "cancelled", "expired")
UNFINISHED: tuple[JobState, ...] = ("queued", "running")
UploadKind = Literal["photo", "archive", "video"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,                    -- of JobState, or 'receiving'
    receiver TEXT NOT NULL,                 -- name of the lock that its receiver holds
    turn INTEGER,                           -- order of acceptance
    owner TEXT NOT NULL DEFAULT '',
    request_id TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    options TEXT NOT NULL DEFAULT '{}',
    uploads TEXT NOT NULL DEFAULT '[]',
    total INTEGER,
    done INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,    -- begun since the last photo was done
    upload_bytes INTEGER NOT NULL,
    expected_bytes INTEGER NOT NULL DEFAULT 0,
    output_bytes INTEGER NOT NULL DEFAULT 0,
    created_at REAL,
    started_at REAL,
    finished_at REAL,
    kept_s REAL NOT NULL DEFAULT 0,
    error TEXT
);
CREATE TABLE results (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    line TEXT NOT NULL,
    picture TEXT,
    PRIMARY KEY (job, position)
);
"""
_USED_BYTES = """
SELECT COALESCE(SUM(CASE WHEN state IN ('receiving', 'queued', 'running')
    THEN upload_bytes + MAX(expected_bytes, output_bytes) ELSE output_bytes END), 0) FROM jobs
"""
_WITH_FILES = ("receiving", "queued", "running", "done", "failed")
_LINES_AT_A_TIME = 16
_BUSY_S = 60
_SPARE_BYTES = 32 * 2**20
"""Room on the disk that an upload leaves free, for the database and for others."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What a store may hold.

    Attributes:
        max_jobs: Jobs, ended ones that are still kept included.
        max_bytes: Uploads, pictures and results of all of them.
        keep_s: How long an ended job is kept.
    """

    max_jobs: int
    max_bytes: int
    keep_s: float


@dataclass(frozen=True, slots=True)
class Upload:
    """One file that was sent.

    Attributes:
        name: As the client called it; only ever shown.
        kind: What its first bytes say.
        file: Name in the folder of uploads.
        count: Photos in it; None where a video's header does not say.
    """

    name: str
    kind: UploadKind
    file: str
    count: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the database knows it; times are seconds since 1970.

    Attributes:
        owner: Whoever sent it, where the server tells people apart; otherwise empty.
        options: JSON, which the routes and the worker understand.
        total: Photos and frames; None while a video's length is not known.
        done: Photos that were segmented.
        failed: Photos that could not be.
        attempts: How often work was begun since a photo was last done; more than one means
            that a process died over it.
        kept_s: Seconds of the server's running time since the job ended.
        error: JSON of the problem for which the job failed.
    """

    id: str
    state: JobState
    turn: int
    owner: str
    request_id: str
    model: str
    options: str
    uploads: tuple[Upload, ...]
    total: int | None
    done: int
    failed: int
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    kept_s: float
    error: str | None

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED


_COLUMNS = ", ".join(field for field in Job.__dataclass_fields__)


class ProcessLock:
    """Held by at most one process, and released by the system should that one die.

    It is the lock of an empty SQLite database, which works on every system.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )

    def acquire(self) -> bool:
        """Take the lock if nobody else holds it."""
        try:
            self._connection.execute("PRAGMA journal_mode = MEMORY")  # and no file for it
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Release the lock."""
        self._connection.close()


class JobStore:
    """All jobs in one folder, which several processes may share; its methods are thread-safe.

    Args:
        folder: On a local disk; made if it is not there, readable by this user only.
        limits: What it may hold.

    Attributes:
        accepted: Set when this process has accepted a job; whoever waits for it clears it.

    Raises:
        SettingsError: The folder cannot be used, or was written by a newer maskserve.
    """

    def __init__(self, folder: Path, limits: StoreLimits) -> None:
        self.limits = limits
        self.accepted = threading.Event()
        self._folder = folder
        self._mutex = threading.RLock()
        self._receiver = uuid4().hex
        try:
            for part in (folder, self._jobs, self._locks):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                folder / "jobs.sqlite",
                timeout=_BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._set_up()
            with self._transaction():  # so that no sweep finds the lock before it is held
                self._receiver_lock = ProcessLock(self._locks / f"{self._receiver}.receiver")
                self._receiver_lock.acquire()
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                f"Jobs cannot be kept in {folder}: {error}.",
                hint="Set jobs_dir to a folder on a local disk that the server may write to.",
            ) from error

    @property
    def _jobs(self) -> Path:
        return self._folder / "jobs"

    @property
    def _locks(self) -> Path:
        return self._folder / "locks"

    def _set_up(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_SPARE_BYTES // 4}")
        with self._transaction():
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise SettingsError(f"{self._folder} was written by a newer maskserve.")
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def close(self) -> None:
        """Let go of the files; only needed where the process goes on living."""
        with self._mutex:
            self._connection.close()
            self._receiver_lock.close()
            (self._locks / f"{self._receiver}.receiver").unlink(missing_ok=True)

    def worker_lock(self) -> ProcessLock:
        """The lock of the one process that works the jobs off."""
        return ProcessLock(self._locks / "worker")

    # --- Receiving -------------------------------------------------------------------------

    @contextmanager
    def receiving(self, size: int) -> Iterator[str]:
        """Reserve room for an upload; yields the id of the job to be.

        Unless :meth:`accept` was called when the block ends, nothing of it is left.

        Args:
            size: Bytes at most, of which the caller takes care.

        Raises:
            JobStoreFullError: There is no room, or the disk ran full in the block.
        """
        job_id = uuid4().hex
        with self._transaction() as connection:
            (count,) = connection.execute(
                f"SELECT COUNT(*) FROM jobs WHERE state IN {_WITH_FILES}"
            ).fetchone()
            (used,) = connection.execute(_USED_BYTES).fetchone()
            if count >= self.limits.max_jobs:
                raise _full(f"{count} jobs are kept already")
            if used + size > self.limits.max_bytes:
                raise _full(
                    f"{_mib(used)} of {_mib(self.limits.max_bytes)} are in use, and this needs "
                    f"up to {_mib(size)}"
                )
            if shutil.disk_usage(self._folder).free < size + _SPARE_BYTES:
                raise _full("the disk is nearly full")
            connection.execute(
                "INSERT INTO jobs (id, state, receiver, upload_bytes) "
                "VALUES (?, 'receiving', ?, ?)",
                (job_id, self._receiver, size),
            )
        try:
            self.uploads_folder(job_id).mkdir(parents=True)
            yield job_id
        except OSError as error:
            _raise_if_full(error)
            raise
        finally:
            self._drop_unless_accepted(job_id)

    def _drop_unless_accepted(self, job_id: str) -> None:
        with self._mutex:
            row = self._connection.execute(
                "SELECT 1 FROM jobs WHERE id = ? AND state = 'receiving'", (job_id,)
            ).fetchone()
        if row:
            self._remove_files(job_id)
            with self._transaction() as connection:
                connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def accept(
        self,
        job_id: str,
        uploads: Sequence[Upload],
        *,
        model: str,
        options: str,
        total: int | None,
        expected_bytes: int,
        request_id: str,
        owner: str = "",
    ) -> Job:
        """Make a job of what was received; once this returns, no crash loses it.

        Args:
            expected_bytes: What its results and pictures are likely to take; this much is
                kept free for them.
            The others: As in :class:`Job`.

        Raises:
            JobStoreFullError: The disk is full.
        """
        folder = self.uploads_folder(job_id)
        size = 0
        for upload in uploads:
            size += (folder / upload.file).stat().st_size
            _sync(folder / upload.file)
        for path in (folder, folder.parent, folder.parent.parent):
            _sync(path)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'queued', owner = ?, request_id = ?, model = ?, "
                "options = ?, uploads = ?, total = ?, upload_bytes = ?, expected_bytes = ?, "
                "created_at = ?, turn = (SELECT COALESCE(MAX(turn), 0) + 1 FROM jobs) "
                "WHERE id = ?",
                (
                    owner,
                    request_id,
                    model,
                    options,
                    json.dumps([asdict(upload) for upload in uploads]),
                    total,
                    size,
                    expected_bytes,
                    time.time(),
                    job_id,
                ),
            )
        self.accepted.set()
        return self.get(job_id)

    # --- Looking ---------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            UnknownJobError: There is none, or none any more.
        """
        jobs = self._select("id = ?", job_id)
        if not jobs:
            raise UnknownJobError(
                f"There is no job “{job_id[:40]}”.",
                hint="It may have been deleted, or be forgotten long after it expired.",
            )
        return jobs[0]

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return self._select("1 ORDER BY turn DESC")

    def unfinished(self) -> list[Job]:
        """The jobs that are queued or running, in the order of acceptance."""
        return self._select(f"state IN {UNFINISHED} ORDER BY turn")

    def jobs_before(self, job: Job) -> int:
        """How many unfinished jobs were accepted before this one."""
        with self._mutex:
            (count,) = self._connection.execute(
                f"SELECT COUNT(*) FROM jobs WHERE state IN {UNFINISHED} AND turn < ?", (job.turn,)
            ).fetchone()
        return int(count)

    def count_by_state(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        with self._mutex:
            rows = self._connection.execute(
                "SELECT state, COUNT(*) FROM jobs WHERE state != 'receiving' GROUP BY state"
            ).fetchall()
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        counts.update(rows)
        return counts

    def used_bytes(self) -> int:
        """Bytes in use or reserved."""
        with self._mutex:
            (used,) = self._connection.execute(_USED_BYTES).fetchone()
        return int(used)

    def lines(self, job_id: str, *, start: int = 0) -> Iterator[str]:
        """The lines of results that are there now, in order, from a position on."""
        for _, line, _ in self._results(job_id, start):
            yield line

    def pictures(self, job_id: str) -> Iterator[tuple[str, Path]]:
        """Name and file of the drawn photos that are there now, in order."""
        for position, _, name in self._results(job_id, 0):
            if name is not None:
                yield name, self.picture_path(job_id, position)

    def _results(self, job_id: str, start: int) -> Iterator[tuple[int, str, str | None]]:
        """Few at a time: clients may be slow, and lines long."""
        while True:
            with self._mutex:
                rows = self._connection.execute(
                    "SELECT position, line, picture FROM results WHERE job = ? AND position >= ? "
                    "ORDER BY position LIMIT ?",
                    (job_id, start, _LINES_AT_A_TIME),
                ).fetchall()
            if not rows:
                return
            yield from rows
            start = rows[-1][0] + 1

    def _select(self, condition: str, *values: str) -> list[Job]:
        with self._mutex:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE state != 'receiving' AND {condition}", values
            ).fetchall()
        jobs = []
        for row in rows:
            fields = dict(zip(Job.__dataclass_fields__, row, strict=True))
            fields["uploads"] = tuple(Upload(**upload) for upload in json.loads(fields["uploads"]))
            jobs.append(Job(**fields))
        return jobs

    # --- Working ---------------------------------------------------------------------------

    def begin(self, job_id: str) -> Job | None:
        """Take a job up, also again after a crash; None if it is not to be worked any more."""
        with self._transaction() as connection:
            begun = connection.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, "
                f"started_at = COALESCE(started_at, ?) WHERE id = ? AND state IN {UNFINISHED}",
                (time.time(), job_id),
            ).rowcount
        return self.get(job_id) if begun else None

    def put_result(
        self, job_id: str, line: str, *, failed: bool, picture: tuple[str, bytes] | None = None
    ) -> bool:
        """Store the result of the next photo.

        Args:
            line: One line of JSON, without its end.
            failed: Whether it tells of an error.
            picture: Name for people, and content, of the drawn photo.

        Returns:
            Whether the job goes on; False once it is cancelled or removed.

        Raises:
            JobTooLargeError: The results would exceed what the store may hold.
            JobStoreFullError: The disk is full; nothing was stored.
        """
        jobs = self._select("id = ?", job_id)
        if not jobs or jobs[0].finished:
            return False
        position = jobs[0].done + jobs[0].failed
        name, content = picture or (None, b"")
        size = len(line.encode()) + 1 + len(content)
        path = self.picture_path(job_id, position)
        try:
            if picture:
                _write_picture(path, content)
            stored = self._put_result(job_id, position, line, name, failed=failed, size=size)
        except FileNotFoundError:
            stored = False
        except (JobStoreFullError, JobTooLargeError):
            path.unlink(missing_ok=True)
            raise
        if not stored:  # it was cancelled meanwhile, and the picture came after its removal
            self._remove_files(job_id)
        return stored

    def _put_result(
        self, job_id: str, position: int, line: str, picture: str | None, *, failed: bool, size: int
    ) -> bool:
        with self._transaction() as connection:
            stored = connection.execute(
                "UPDATE jobs SET done = done + ?, failed = failed + ?, attempts = 0, "
                "output_bytes = output_bytes + ?, total = MAX(total, done + failed + 1) "
                "WHERE id = ? AND state = 'running'",
                (not failed, failed, size, job_id),
            ).rowcount
            if not stored:
                return False
            if connection.execute(_USED_BYTES).fetchone()[0] > self.limits.max_bytes:
                raise JobTooLargeError(
                    "The results of this job do not fit into the job store.",
                    hint="Those that were there before are kept. Delete other jobs, or send the "
                    "rest in smaller jobs.",
                )
            connection.execute(
                "INSERT INTO results (job, position, line, picture) VALUES (?, ?, ?, ?)",
                (job_id, position, line, picture),
            )
        return True

    def pause(self, job_id: str) -> None:
        """Leave a job for later, in good order."""
        with self._transaction() as connection:
            connection.execute("UPDATE jobs SET attempts = 0 WHERE id = ?", (job_id,))

    def finish(self, job_id: str, *, error: str | None = None) -> bool:
        """End a job: as done, or as failed with the JSON of a problem.

        Returns:
            Whether it was unfinished until now.
        """
        with self._transaction() as connection:
            ended = connection.execute(
                "UPDATE jobs SET state = ?, error = ?, finished_at = ?, "
                "total = CASE WHEN ? IS NULL THEN done + failed ELSE total END "
                f"WHERE id = ? AND state IN {UNFINISHED}",
                ("failed" if error else "done", error, time.time(), error, job_id),
            ).rowcount
        if ended:
            shutil.rmtree(self.uploads_folder(job_id), ignore_errors=True)
        return bool(ended)

    # --- Ending ----------------------------------------------------------------------------

    def cancel(self, job_id: str) -> None:
        """Cancel an unfinished job, and remove its photos and results; forget an ended one.

        Raises:
            UnknownJobError: There is no such job.
        """
        try:
            self._cancel(job_id)
        except JobStoreFullError:  # even a database needs room to forget something
            self.get(job_id)
            self._remove_files(job_id)
            self._cancel(job_id)
        self._remove_files(job_id)

    def _cancel(self, job_id: str) -> None:
        with self._transaction() as connection:
            if self.get(job_id).finished:
                connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            else:
                self._retire("cancelled", "id = ?", job_id)

    def tick(self, elapsed_s: float) -> None:
        """Let ended jobs age, and let go of those that are old enough."""
        keep_s = self.limits.keep_s
        for job in self._select("state IN ('done', 'failed')"):
            if job.kept_s + elapsed_s >= keep_s:
                self._remove_files(job.id)  # first, since it makes room for what follows
        with self._transaction() as connection:
            connection.execute(
                "UPDATE jobs SET kept_s = kept_s + ? WHERE state IN ('done', 'failed')",
                (elapsed_s,),
            )
            self._retire("expired", "state IN ('done', 'failed') AND kept_s >= ?", keep_s)
            connection.execute(
                "DELETE FROM jobs WHERE state IN ('cancelled', 'expired') AND turn <= "
                "(SELECT turn FROM jobs WHERE state IN ('cancelled', 'expired') "
                "ORDER BY turn DESC LIMIT 1 OFFSET ?)",
                (self.limits.max_jobs,),
            )
        with self._mutex:
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    def _retire(self, state: JobState, condition: str, value: str | float) -> None:
        """Keep no more than the row of the jobs that meet a condition; in a transaction."""
        self._connection.execute(
            f"DELETE FROM results WHERE job IN (SELECT id FROM jobs WHERE {condition})", (value,)
        )
        self._connection.execute(
            "UPDATE jobs SET state = ?, output_bytes = 0, uploads = '[]', "
            f"finished_at = COALESCE(finished_at, ?) WHERE {condition}",
            (state, time.time(), value),
        )

    def sweep(self) -> None:
        """Remove what crashes left behind."""
        with self._transaction() as connection:
            for path in self._locks.glob("*.receiver"):
                if path.stem == self._receiver:
                    continue
                lock = ProcessLock(path)
                if lock.acquire():  # its process is dead
                    connection.execute(
                        "DELETE FROM jobs WHERE state = 'receiving' AND receiver = ?", (path.stem,)
                    )
                    path.unlink(missing_ok=True)
                lock.close()
        folders = list(self._jobs.iterdir())
        with self._mutex:
            state_of = dict(self._connection.execute("SELECT id, state FROM jobs").fetchall())
        for folder in folders:
            if state_of.get(folder.name) not in _WITH_FILES:
                self._remove_files(folder.name)
            elif state_of[folder.name] in ("done", "failed"):
                shutil.rmtree(self.uploads_folder(folder.name), ignore_errors=True)

    # --- Files -----------------------------------------------------------------------------

    def uploads_folder(self, job_id: str) -> Path:
        """Where the files are that were sent."""
        return self._jobs / job_id / "uploads"

    def picture_path(self, job_id: str, position: int) -> Path:
        """Where the drawn photo of a position is."""
        return self._jobs / job_id / "pictures" / f"{position:06d}.jpg"

    def _remove_files(self, job_id: str) -> None:
        """What cannot be removed now is found by the next sweep."""
        shutil.rmtree(self._jobs / job_id, ignore_errors=True)

    # --- The database ----------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing, and nobody else's writes in between."""
        with self._mutex:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                    raise _full(f"writing failed: {error}") from error
                raise
            finally:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")


def _write_picture(path: Path, content: bytes) -> None:
    """Where a crash left one of the same photo, it is written anew."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir()
            _sync(path.parent.parent)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except OSError as error:
        _raise_if_full(error)
        raise


def _raise_if_full(error: OSError) -> None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise _full(f"writing failed: {error.strerror}") from error


def _full(why: str) -> JobStoreFullError:
    return JobStoreFullError(
        f"The job store is full: {why}.",
        hint="Delete jobs whose results you have, or try again when others have expired.",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _sync(path: Path) -> None:
    """Have a file or a folder on the disk before going on."""
    if path.is_dir() and os.name == "nt":
        return  # Windows does not open folders
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
