"""The worker goes on after whatever happens to it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api_fakes import FakeRegistry, make_registry
from maskserve.api import ServerSettings
from maskserve.api.jobs.schemas import JobQuery
from maskserve.api.jobs.store import Job, JobStore, Upload
from maskserve.api.jobs.worker import JobWorker
from maskserve.api.services import Services
from maskserve.core.errors import JobStoreFullError

WAIT_S = 30


class Workplace:
    """Services with a store and an engine whose calls a test can watch and stop."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.before: Callable[[], None] = lambda: None
        self.registry: FakeRegistry = make_registry("balloon", before=self.run_before)
        self.settings = ServerSettings(jobs_dir=folder / "jobs", **settings)
        self.start_again()

    def run_before(self) -> None:
        """What a test wants to happen before each network."""
        self.before()

    def start_again(self) -> None:
        """As a new process would; the old one is forgotten."""
        self.services = Services(self.settings, self.registry)
        assert self.services.jobs
        self.store: JobStore = self.services.jobs
        self.worker = JobWorker(self.services, self.store)

    def accept(self, *photos: bytes, **options: Any) -> Job:
        query = JobQuery(**options)
        with self.store.receiving(sum(map(len, photos))) as job_id:
            uploads = []
            for i, photo in enumerate(photos):
                (self.store.uploads_folder(job_id) / f"{i}").write_bytes(photo)
                uploads.append(Upload(f"{i}.jpg", "photo", f"{i}", 1))
            return self.store.accept(
                job_id,
                uploads,
                model="balloon",
                options=query.model_dump_json(),
                total=len(photos),
                expected_bytes=0,
                request_id="r",
            )

    def lines(self, job: Job) -> list[str]:
        return list(self.store.lines(job.id))

    def wait_for(self, job: Job, state: str) -> Job:
        for _ in range(WAIT_S * 50):
            if self.store.get(job.id).state == state:
                return self.store.get(job.id)
            time.sleep(0.02)
        pytest.fail(f"the job never was {state}")


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def running(workplace: Workplace) -> Iterator[Workplace]:
    workplace.worker.start()
    yield workplace
    workplace.worker.stop()


class Killed(BaseException):
    """The process ends here."""


def test_jobs_are_worked_off_as_they_come(running: Workplace, jpeg: bytes) -> None:
    jobs = [running.accept(jpeg, jpeg) for _ in range(3)]
    ended = [running.wait_for(job, "done") for job in jobs]
    times = [job.finished_at for job in ended if job.finished_at]
    assert times == sorted(times)
    assert [len(running.lines(job)) for job in jobs] == [2, 2, 2]


def test_it_goes_on_at_the_first_photo_without_a_result(workplace: Workplace, jpeg: bytes) -> None:
    job = workplace.accept(jpeg, jpeg, jpeg, pictures=True)
    calls = 0

    def die_at_the_second() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed

    workplace.before = die_at_the_second
    with pytest.raises(Killed):
        workplace.worker.work_one()
    assert len(workplace.lines(job)) == 1
    workplace.start_again()
    while workplace.worker.work_one():
        pass
    assert calls == 4
    lines = workplace.lines(job)
    assert [f'"index":{i},' in line for i, line in enumerate(lines)] == [True] * 3
    assert len(list(workplace.store.pictures(job.id))) == 3


def test_a_photo_that_kills_the_server_is_given_up(workplace: Workplace, jpeg: bytes) -> None:
    job = workplace.accept(b"the killer", jpeg)
    deaths = 0

    def die() -> bytes:
        nonlocal deaths
        deaths += 1
        raise Killed

    killer = workplace.store.uploads_folder(job.id) / "0"
    original = Path.read_bytes
    patched = pytest.MonkeyPatch()
    patched.setattr(Path, "read_bytes", lambda path: die() if path == killer else original(path))
    for _ in range(3):
        with pytest.raises(Killed):
            workplace.worker.work_one()
        workplace.start_again()
    assert workplace.worker.work_one()
    patched.undo()
    assert deaths == 3
    first, second = workplace.lines(job)
    assert "stopped 3 times while it worked on this photo" in first
    assert "error" not in second
    assert workplace.store.get(job.id).state == "done"


def test_a_job_that_kills_the_server_all_the_same_is_given_up(
    workplace: Workplace, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = workplace.accept(jpeg), workplace.accept(jpeg)

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("maskserve.api.jobs.worker.read_photos", die)
        for _ in range(4):
            with pytest.raises(Killed):
                workplace.worker.work_one()
            workplace.start_again()
        assert workplace.worker.work_one()
    failed = workplace.store.get(job.id)
    assert failed.state == "failed"
    assert "stopped 4 times" in str(failed.error)
    assert workplace.worker.work_one()
    assert workplace.store.get(other.id).state == "done"


def test_draining_ends_work_after_the_current_photo(workplace: Workplace, jpeg: bytes) -> None:
    job = workplace.accept(*[jpeg] * 5)
    workplace.before = workplace.services.draining.set
    workplace.worker.work_one()
    assert len(workplace.lines(job)) == 1
    assert workplace.store.get(job.id).state == "running"
    assert workplace.store.get(job.id).attempts == 0
    workplace.before = lambda: None
    workplace.start_again()
    workplace.worker.work_one()
    assert len(workplace.lines(job)) == 5


def test_cancelling_ends_work_after_the_current_photo(workplace: Workplace, jpeg: bytes) -> None:
    job = workplace.accept(*[jpeg] * 5, pictures=True)
    calls = []

    def cancel() -> None:
        calls.append(1)
        workplace.store.cancel(job.id)

    workplace.before = cancel
    workplace.worker.work_one()
    assert len(calls) == 1
    assert workplace.store.get(job.id).state == "cancelled"
    assert not list((workplace.folder / "jobs" / "jobs").iterdir())
    assert not workplace.worker.work_one()


def test_on_a_full_disk_it_waits(
    running: Workplace, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskserve.api.jobs.worker._AFTER_FAILURE_S", 0.01)
    full = threading.Event()
    full.set()
    refused = threading.Event()

    def need_room(method: Any) -> Any:
        def call(*args: Any, **values: Any) -> Any:
            if full.is_set():
                refused.set()
                raise JobStoreFullError("The disk is full.")
            return method(*args, **values)

        return call

    for name in ("_put_result", "finish", "tick"):
        monkeypatch.setattr(running.store, name, need_room(getattr(running.store, name)))
    job = running.accept(jpeg, jpeg)
    assert refused.wait(WAIT_S)
    assert running.store.get(job.id).state == "running"
    full.clear()
    running.wait_for(job, "done")
    assert len(running.lines(job)) == 2


def test_a_disk_that_is_full_at_the_end_of_a_job(
    running: Workplace, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskserve.api.jobs.worker._AFTER_FAILURE_S", 0.01)
    finish = running.store.finish
    refusals = iter(range(20))  # more than a job that kills the server would get

    def finish_later(*args: Any, **values: Any) -> bool:
        if next(refusals, None) is not None:
            raise JobStoreFullError("The disk is full.")
        return finish(*args, **values)

    monkeypatch.setattr(running.store, "finish", finish_later)
    job = running.accept(jpeg)
    assert running.wait_for(job, "done").error is None


def test_a_job_does_not_age_before_its_end(
    workplace: Workplace, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = workplace.accept(jpeg)
    now = time.monotonic()
    monkeypatch.setattr(workplace.worker, "_ticked_s", now - 9)
    workplace.worker.work_one()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    workplace.worker.work_one()
    assert 0 < workplace.store.get(job.id).kept_s <= 60


def test_photos_that_somebody_removed(workplace: Workplace, jpeg: bytes) -> None:
    job = workplace.accept(jpeg)
    shutil.rmtree(workplace.store.uploads_folder(job.id))
    workplace.worker.work_one()
    failed = workplace.store.get(job.id)
    assert failed.state == "failed"
    assert "job_gone" in str(failed.error)


def test_results_that_do_not_fit(tmp_path: Path, jpeg: bytes) -> None:
    roomy = Workplace(tmp_path / "roomy")
    roomy.accept(jpeg, pictures=True)
    roomy.worker.work_one()
    of_one_photo = roomy.store.used_bytes()
    room = 2 * len(jpeg) + of_one_photo * 3 // 2
    workplace = Workplace(tmp_path, jobs_max_bytes=room)
    job = workplace.accept(jpeg, jpeg, pictures=True)
    workplace.worker.work_one()
    failed = workplace.store.get(job.id)
    assert failed.state == "failed"
    assert "job_too_large" in str(failed.error)
    assert len(workplace.lines(job)) == 1
    assert workplace.store.used_bytes() <= workplace.settings.jobs_max_bytes


def test_photos_of_requests_overtake(running: Workplace, jpeg: bytes) -> None:
    """They get the next turn, however many photos a job has."""
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def record() -> None:
        order.append(threading.current_thread().name)
        begun.set()
        go_on.wait(WAIT_S)

    running.before = record
    job = running.accept(*[jpeg] * 4)
    assert begun.wait(WAIT_S)
    requests = [threading.Thread(target=segment, args=(running, jpeg), name="r") for _ in range(3)]
    for request in requests:
        request.start()
    while running.services.admission.waiting < 3:
        time.sleep(0.01)
    go_on.set()
    for request in requests:
        request.join(WAIT_S)
    running.wait_for(job, "done")
    assert order == ["jobs", "r", "r", "r", "jobs", "jobs", "jobs"]


def segment(workplace: Workplace, jpeg: bytes) -> None:
    from maskserve.api.work import segmented  # noqa: PLC0415

    with segmented(workplace.services, jpeg, model="balloon"):
        pass


def test_a_second_worker_takes_over(workplace: Workplace, jpeg: bytes) -> None:
    first, first_store = workplace.worker, workplace.store
    first.start()
    workplace.wait_for(workplace.accept(jpeg), "done")
    workplace.start_again()
    second = workplace.worker
    second.start()
    workplace.wait_for(workplace.accept(jpeg), "done")
    assert second._thread.is_alive()
    first.stop()
    first_store.close()
    workplace.wait_for(workplace.accept(jpeg), "done")
    second.stop()
    assert not second._thread.is_alive()
