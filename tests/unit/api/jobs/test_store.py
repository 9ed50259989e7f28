"""The store keeps what it has accepted, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from maskserve.api.jobs import store as store_module
from maskserve.api.jobs.store import Job, JobStore, StoreLimits, Upload
from maskserve.core.errors import (
    JobStoreFullError,
    JobTooLargeError,
    SettingsError,
    UnknownJobError,
)

LIMITS = StoreLimits(max_jobs=5, max_bytes=10_000, keep_s=100)
NO_SUCH_JOB = "0" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(folder: Path) -> Iterator[JobStore]:
    store = JobStore(folder, LIMITS)
    yield store
    store.close()


def accept(store: JobStore, *, photos: int = 3, size: int = 100, **values: Any) -> Job:
    with store.receiving(photos * size) as job_id:
        uploads = [write_upload(store, job_id, i, size) for i in range(photos)]
        accepted: dict[str, Any] = {"model": "balloon", "options": "{}", "total": photos}
        accepted |= {"expected_bytes": 0, "request_id": "r"} | values
        return store.accept(job_id, uploads, **accepted)


def write_upload(store: JobStore, job_id: str, i: int, size: int) -> Upload:
    (store.uploads_folder(job_id) / f"{i:06d}").write_bytes(bytes(size))
    return Upload(f"{i}.jpg", "photo", f"{i:06d}", 1)


def work_off(store: JobStore, job: Job, *, photos: int = 3) -> None:
    assert store.begin(job.id)
    for i in range(photos):
        assert store.put_result(job.id, f'{{"index":{i}}}', failed=False)
    assert store.finish(job.id)


def jobs_on_disk(folder: Path) -> set[str]:
    return {path.name for path in (folder / "jobs").iterdir()}


def test_what_was_accepted_is_there_after_a_restart(store: JobStore, folder: Path) -> None:
    job = accept(store, model="kite", options='{"masks": "none"}', owner="ann")
    again = JobStore(folder, LIMITS)  # the first one was killed, as it were
    assert again.unfinished() == [job]
    assert again.get(job.id).uploads[2] == Upload("2.jpg", "photo", "000002", 1)
    assert (job.state, job.model, job.owner, job.total) == ("queued", "kite", "ann", 3)
    assert (again.uploads_folder(job.id) / "000002").stat().st_size == 100


def test_jobs_are_in_the_order_of_acceptance(store: JobStore) -> None:
    with store.receiving(10) as slow_id:
        first = accept(store)
        upload = write_upload(store, slow_id, 0, 10)
        second = store.accept(
            slow_id,
            [upload],
            model="",
            options="{}",
            total=1,
            expected_bytes=0,
            request_id="",
        )
    assert [job.id for job in store.unfinished()] == [first.id, second.id]
    assert (store.jobs_before(first), store.jobs_before(second)) == (0, 1)
    assert [job.id for job in store.jobs()] == [second.id, first.id]


def test_an_upload_that_breaks_off_leaves_nothing(store: JobStore, folder: Path) -> None:
    with suppress(ConnectionResetError), store.receiving(1000) as job_id:
        write_upload(store, job_id, 0, 500)
        raise ConnectionResetError
    assert not jobs_on_disk(folder)
    assert (store.jobs(), store.used_bytes()) == ([], 0)


@pytest.mark.parametrize("stage", ["writing", "syncing"])
def test_a_full_disk_refuses_and_leaves_nothing(
    store: JobStore, folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if stage == "syncing":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(JobStoreFullError, match="No space left"):
        accept(store)
    assert not jobs_on_disk(folder)
    assert store.used_bytes() == 0


def test_a_nearly_full_disk_is_not_filled(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tempfile.gettempdir())._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(JobStoreFullError, match="disk is nearly full"):
        accept(store)


def test_the_number_of_jobs_is_bounded(store: JobStore) -> None:
    jobs = [accept(store) for _ in range(LIMITS.max_jobs)]
    with pytest.raises(JobStoreFullError, match="5 jobs are kept"):
        accept(store)
    store.cancel(jobs[0].id)
    accept(store)


def test_bytes_are_bounded_and_those_on_their_way_count(store: JobStore) -> None:
    with store.receiving(6000):
        with pytest.raises(JobStoreFullError, match="are in use"):
            accept(store, photos=1, size=5000)
        accept(store, photos=1, size=4000)
    assert store.used_bytes() == 4000
    accept(store, photos=1, size=5000)


def test_results_have_room_kept_for_them(store: JobStore) -> None:
    job = accept(store, photos=1, size=1000, expected_bytes=5000)
    with pytest.raises(JobStoreFullError):
        accept(store, photos=1, size=4001)
    store.begin(job.id)
    assert store.put_result(job.id, "x" * 4000, failed=False)
    assert store.used_bytes() == 6000
    store.finish(job.id)
    assert store.used_bytes() == 4001


def test_results_that_do_not_fit_are_not_stored(store: JobStore) -> None:
    job = accept(store)
    store.begin(job.id)
    assert store.put_result(job.id, "fits", failed=False)
    with pytest.raises(JobTooLargeError):
        store.put_result(job.id, "x", failed=False, picture=("a.jpg", bytes(20_000)))
    assert list(store.lines(job.id)) == ["fits"]
    assert not store.picture_path(job.id, 1).exists()
    assert store.get(job.id).done == 1


def test_lines_and_pictures_come_in_order(store: JobStore) -> None:
    job = accept(store)
    store.begin(job.id)
    for i in range(40):  # more than are read at a time
        picture = (f"{i}.jpg", bytes([i])) if i % 2 else None
        assert store.put_result(job.id, f"line {i}", failed=i == 7, picture=picture)
    assert list(store.lines(job.id)) == [f"line {i}" for i in range(40)]
    assert list(store.lines(job.id, start=38)) == ["line 38", "line 39"]
    pictures = list(store.pictures(job.id))
    assert [name for name, _ in pictures] == [f"{i}.jpg" for i in range(1, 40, 2)]
    assert pictures[-1][1].read_bytes() == bytes([39])
    job = store.get(job.id)
    assert (job.done, job.failed, job.total) == (39, 1, 40)


def test_the_uploads_are_removed_at_the_end(store: JobStore) -> None:
    job = accept(store)
    work_off(store, job)
    assert not store.uploads_folder(job.id).exists()
    assert store.get(job.id).state == "done"
    assert list(store.lines(job.id))


def test_a_cancelled_job_is_removed_but_known(store: JobStore, folder: Path) -> None:
    job = accept(store)
    store.begin(job.id)
    store.put_result(job.id, "line", failed=False, picture=("a.jpg", b"a"))
    store.cancel(job.id)
    assert store.get(job.id).state == "cancelled"
    assert not list(store.lines(job.id))
    assert not jobs_on_disk(folder)
    # The worker, which was in the middle of a photo:
    assert not store.put_result(job.id, "line", failed=False, picture=("b.jpg", b"b"))
    assert not store.finish(job.id)
    assert store.begin(job.id) is None
    assert not jobs_on_disk(folder)
    store.cancel(job.id)
    with pytest.raises(UnknownJobError):
        store.get(job.id)
    with pytest.raises(UnknownJobError):
        store.cancel(job.id)


def test_a_job_that_is_cancelled_while_a_result_is_stored(
    store: JobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = accept(store)
    store.begin(job.id)

    def write_after_cancel(path: Path, content: bytes) -> None:
        store.cancel(job.id)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    monkeypatch.setattr(store_module, "_write_picture", write_after_cancel)
    assert not store.put_result(job.id, "line", failed=False, picture=("a.jpg", b"a"))
    assert store.get(job.id).done == 0
    assert not list(store.lines(job.id))
    assert not jobs_on_disk(folder)


def test_cancelling_frees_room_even_on_a_full_disk(
    store: JobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = accept(store)
    retire = store._retire

    def need_room(*args: Any) -> None:
        if jobs_on_disk(folder):
            raise JobStoreFullError("The disk is full.")
        retire(*args)

    monkeypatch.setattr(store, "_retire", need_room)
    store.cancel(job.id)
    assert store.get(job.id).state == "cancelled"


def test_a_full_database_is_told_as_a_full_store(store: JobStore) -> None:
    job = accept(store)
    store.begin(job.id)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JobStoreFullError, match="database or disk is full"):
        store.put_result(job.id, "x" * 5000, failed=False)
    assert not list(store.lines(job.id))
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert store.put_result(job.id, "x" * 5000, failed=False)


def test_jobs_expire_by_running_time_alone(
    store: JobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, waiting = accept(store), accept(store)
    work_off(store, done)
    now = time.time()
    for jump in (3600, 10 * 365 * 86400, -3600, -now):  # the clock of the machine
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        store.tick(10)
        assert store.get(done.id).state == "done"
    again = JobStore(folder, LIMITS)  # what has passed is not forgotten
    again.tick(59.9)
    assert list(again.lines(done.id))
    again.tick(0.2)
    assert again.get(done.id).state == "expired"
    assert not list(again.lines(done.id))
    assert jobs_on_disk(folder) == {waiting.id}
    assert again.get(waiting.id).state == "queued"
    assert again.used_bytes() == 300


def test_only_so_many_expired_jobs_are_remembered(store: JobStore) -> None:
    for _ in range(LIMITS.max_jobs + 2):
        job = accept(store)
        work_off(store, job)
        store.tick(LIMITS.keep_s)
    assert store.jobs()[0].id == job.id
    assert store.count_by_state()["expired"] == LIMITS.max_jobs


def test_a_sweep_removes_what_a_dead_process_received(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = JobStore(folder, LIMITS)
    monkeypatch.setattr(dead, "_drop_unless_accepted", lambda _: None)
    with dead.receiving(500) as job_id:
        write_upload(dead, job_id, 0, 500)
    dead._connection.close()
    dead._receiver_lock.close()
    other = JobStore(folder, LIMITS)
    assert other.used_bytes() == 500
    other.sweep()
    assert other.used_bytes() == 0
    assert not jobs_on_disk(folder)
    assert len(list((folder / "locks").iterdir())) == 1


def test_a_sweep_spares_what_a_living_process_receives(store: JobStore, folder: Path) -> None:
    with store.receiving(500) as job_id:
        write_upload(store, job_id, 0, 500)
        JobStore(folder, LIMITS).sweep()
        assert (store.uploads_folder(job_id) / "000000").exists()


def test_a_sweep_removes_files_that_no_row_accounts_for(store: JobStore, folder: Path) -> None:
    done, queued = accept(store), accept(store)
    work_off(store, done)
    leftovers = [folder / "jobs" / "lost" / "uploads", store.uploads_folder(done.id)]
    for leftover in leftovers:
        leftover.mkdir(parents=True)
        (leftover / "000000").write_bytes(b"x")
    store.sweep()
    assert not any(leftover.exists() for leftover in leftovers)
    assert (store.uploads_folder(queued.id) / "000000").exists()


def test_only_one_process_works(store: JobStore, folder: Path) -> None:
    first, second = store.worker_lock(), JobStore(folder, LIMITS).worker_lock()
    assert first.acquire()
    assert not second.acquire()
    first.close()
    assert second.acquire()
    assert {path.suffix for path in (folder / "locks").iterdir()} == {"", ".receiver"}


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SettingsError, match="jobs_dir"):
        JobStore(tmp_path / "file", LIMITS)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "jobs.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(SettingsError, match="jobs_dir"):
        JobStore(tmp_path / "damaged", LIMITS)


def test_a_folder_of_a_newer_maskserve(store: JobStore, folder: Path) -> None:
    connection = sqlite3.connect(folder / "jobs.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SettingsError, match="newer maskserve"):
        JobStore(folder, LIMITS)


def test_the_folder_is_private(store: JobStore, folder: Path) -> None:
    if os.name == "nt":
        pytest.skip("Windows has no modes")
    assert folder.stat().st_mode & 0o077 == 0


class Killed(BaseException):
    """The process ends here, as by kill -9."""


def kill(*, if_true: bool) -> None:
    if if_true:
        raise Killed


class StoreMachine(RuleBasedStateMachine):
    """Random use of a store, killed at random places, against a plain list of what must be."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # where there is such a place, since every step syncs
        self.folder = Path(
            tempfile.mkdtemp(prefix="maskserve-test-", dir=memory if memory.is_dir() else None)
        )
        self.store = JobStore(self.folder, LIMITS)
        self.lines: dict[str, list[str]] = {}  # of jobs that must be there, by acceptance
        self.ended: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        assert not self.store.jobs()

    def kill_and_restart(self) -> None:
        self.store._connection.close()
        self.store._receiver_lock.close()
        self.store = JobStore(self.folder, LIMITS)
        self.store.sweep()

    @rule(photos=st.integers(1, 3), size=st.integers(0, 1500))
    def accept(self, photos: int, size: int) -> None:
        try:
            job = accept(self.store, photos=photos, size=size)
        except JobStoreFullError:
            return
        self.lines[job.id] = []

    @rule(place=st.sampled_from(["receiving", "accepting", "synced"]))
    def kill_while_receiving(self, place: str) -> None:
        """Whatever the place: nothing was accepted, so nothing may be left."""
        synced = 0

        def sync(path: Path) -> None:
            nonlocal synced
            synced += 1
            kill(if_true=place == "accepting" and synced == 3)

        # With "synced", the database refuses the job at the very last step.
        request_id: Any = object() if place == "synced" else ""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(store_module, "_sync", sync)
            patched.setattr(self.store, "_drop_unless_accepted", lambda _: None)
            with (
                suppress(Killed, JobStoreFullError, sqlite3.Error),
                self.store.receiving(100) as job_id,
            ):
                upload = write_upload(self.store, job_id, 0, 100)
                kill(if_true=place == "receiving")
                self.store.accept(
                    job_id,
                    [upload],
                    model="",
                    options="{}",
                    total=1,
                    expected_bytes=0,
                    request_id=request_id,
                )
                raise AssertionError("the process was not killed")
        self.kill_and_restart()

    @rule(failed=st.booleans(), picture=st.booleans(), size=st.integers(0, 400))
    def work(self, *, failed: bool, picture: bool, size: int) -> None:
        for job in self.store.unfinished()[:1]:
            assert self.store.begin(job.id)
            line = json.dumps({"index": len(self.lines[job.id]), "pad": "x" * size})
            drawn = ("a.jpg", bytes(size)) if picture else None
            with suppress(JobTooLargeError):
                assert self.store.put_result(job.id, line, failed=failed, picture=drawn)
                self.lines[job.id].append(line)

    @rule(size=st.integers(1, 300))
    def kill_while_storing(self, size: int) -> None:
        """A picture was written, but not its line: the same photo comes again."""
        for job in self.store.unfinished()[:1]:
            self.store.begin(job.id)
            path = self.store.picture_path(job.id, len(self.lines[job.id]))
            store_module._write_picture(path, bytes(size))
        self.kill_and_restart()

    @rule()
    def finish(self) -> None:
        for job in self.store.unfinished()[:1]:
            self.store.begin(job.id)
            assert self.store.finish(job.id)
            self.ended.add(job.id)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.lines:
            job_id = data.draw(st.sampled_from(sorted(self.lines)))
            self.store.cancel(job_id)
            del self.lines[job_id]

    @rule(data=st.data())
    def kill_while_cancelling(self, data: st.DataObject) -> None:
        """Between the database and the files."""
        if self.lines:
            job_id = data.draw(st.sampled_from(sorted(self.lines)))
            self.store._cancel(job_id)
            del self.lines[job_id]
        self.kill_and_restart()

    @rule(elapsed_s=st.sampled_from([1, 40, 200]))
    def tick(self, elapsed_s: float) -> None:
        self.store.tick(elapsed_s)
        expired = {job.id for job in self.store.jobs() if job.state == "expired"}
        assert expired.isdisjoint(job.id for job in self.store.unfinished())
        for job_id in expired & self.lines.keys():
            assert job_id in self.ended
            del self.lines[job_id]

    @rule()
    def restart(self) -> None:
        self.kill_and_restart()

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        kept = {job.id: job for job in self.store.jobs()}
        for job_id, lines in self.lines.items():
            job = kept[job_id]
            assert list(self.store.lines(job_id)) == lines
            assert job.done + job.failed == len(lines)
            assert job.finished == (job_id in self.ended)
            uploads = self.store.uploads_folder(job_id)
            assert job.finished or all((uploads / u.file).exists() for u in job.uploads)
            assert all(path.exists() for _, path in self.store.pictures(job_id))

    @invariant()
    def order_is_kept(self) -> None:
        unfinished = [job_id for job_id in self.lines if job_id not in self.ended]
        assert [job.id for job in self.store.unfinished()] == unfinished

    @invariant()
    def nothing_else_is_kept(self) -> None:
        assert jobs_on_disk(self.folder) == set(self.lines)
        assert self.store.used_bytes() <= LIMITS.max_bytes
        assert len(self.lines) <= LIMITS.max_jobs


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
