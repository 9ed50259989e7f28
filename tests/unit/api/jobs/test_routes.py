"""Jobs over HTTP, with the work done in between where a test wants it done."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PillowImage
from werkzeug.test import TestResponse

from api_fakes import FakeRegistry, check_problem, make_client
from maskserve.api.jobs.worker import JobWorker
from maskserve.api.services import Services
from maskserve.core.errors import BundleCorruptError, EngineError

NO_JOB = "0" * 32


@pytest.fixture
def client(registry: FakeRegistry, tmp_path: Path) -> Iterator[FlaskClient]:
    with make_jobs_client(registry, tmp_path) as client:
        yield client
        services_of(client).jobs.close()  # type: ignore[union-attr]


def make_jobs_client(registry: FakeRegistry, tmp_path: Path, **settings: Any) -> FlaskClient:
    given: dict[str, Any] = {
        "jobs_dir": tmp_path / "jobs",
        "max_bytes": 100_000,
        "max_pixels": 100_000,
        "job_max_bytes": 500_000,
        "job_max_photos": 20,
    }
    return make_client(registry, **(given | settings))


def services_of(client: FlaskClient) -> Services:
    services: Services = client.application.extensions["maskserve"]
    return services


def work(client: FlaskClient) -> None:
    """Work off all jobs that can be."""
    services = services_of(client)
    assert services.jobs
    worker = JobWorker(services, services.jobs)
    while worker.work_one():
        pass


def post(client: FlaskClient, *files: tuple[bytes, str], query: str = "") -> TestResponse:
    """Files as a form."""
    images = [(BytesIO(content), name) for content, name in files]
    return client.post(f"/v1/jobs{query}", data={"images": images})


def accepted(response: TestResponse) -> str:
    """The address of a job."""
    assert response.status_code == 202, response.text
    body = response.get_json()
    assert response.headers["Location"] == body["links"]["self"] == f"/v1/jobs/{body['id']}"
    assert body["state"] == "queued"
    return str(response.headers["Location"])


def lines_of(client: FlaskClient, job: str, query: str = "") -> list[Any]:
    response = client.get(f"{job}/results{query}")
    assert response.status_code == 200
    assert response.content_type == "application/jsonl"
    return [json.loads(line) for line in response.text.splitlines()]


def make_zip(files: dict[str, bytes]) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def make_video(folder: Path, *, frames: int = 5, suffix: str = ".mp4") -> bytes:
    path = folder / f"video{suffix}"
    codec = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}[suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((48, 64, 3), i * 10, dtype=np.uint8))
    writer.release()
    content = path.read_bytes()
    path.unlink()
    return content


def test_photos_of_a_form(client: FlaskClient, jpeg: bytes, png: bytes) -> None:
    job = accepted(post(client, (jpeg, "a.jpg"), (b"broken", "b.jpg"), (png, "c/d.png")))
    assert lines_of(client, job) == []
    work(client)
    body = client.get(job).get_json()
    assert body["state"] == "done"
    assert body["photos"] == {"done": 2, "failed": 1, "total": 3}
    assert body["created_at"] <= body["started_at"] <= body["finished_at"] < body["expires_at"]
    first, second, third = lines_of(client, job)
    assert [line["file"] for line in (first, second, third)] == ["a.jpg", "b.jpg", "c/d.png"]
    assert [line["index"] for line in (first, second, third)] == [0, 1, 2]
    assert second["error"]["code"] == "image_undecodable"
    assert "coverage" not in second
    assert lines_of(client, job, "?start=2") == [third]


def test_a_line_is_what_segment_answers(client: FlaskClient, png: bytes) -> None:
    query = "?min_score=0.2&classes=balloon&masks=polygon&max_instances=2"
    job = accepted(post(client, (png, "a.png"), query=query))
    work(client)
    (line,) = lines_of(client, job)
    answer = client.post(f"/v1/segment{query}", data=png, content_type="image/png").get_json()
    for body in (line, answer):
        del body["timing_ms"], body["request_id"]
    assert line == {"index": 0, "file": "a.png"} | answer
    assert len(answer["instances"]) == 2


def test_lines_have_the_id_of_the_request(client: FlaskClient, jpeg: bytes) -> None:
    data = {"images": [(BytesIO(jpeg), "a.jpg"), (BytesIO(b"x"), "b.jpg")]}
    job = accepted(client.post("/v1/jobs", data=data, headers={"X-Request-Id": "mine"}))
    work(client)
    good, bad = lines_of(client, job)
    assert good["request_id"] == "mine"
    assert bad["error"]["instance"] == "urn:maskserve:request:mine"


def test_a_zip_as_the_body(client: FlaskClient, jpeg: bytes, tmp_path: Path) -> None:
    content = make_zip(
        {"p/a.jpg": jpeg, "__MACOSX/p/._a.jpg": b"x", "../../b.jpg": jpeg, "p/notes.txt": b"hi"}
    )
    job = accepted(client.post("/v1/jobs", data=content, content_type="application/zip"))
    assert client.get(job).get_json()["photos"]["total"] == 3
    work(client)
    lines = lines_of(client, job)
    assert [line["file"] for line in lines] == ["p/a.jpg", "../../b.jpg", "p/notes.txt"]
    assert [("error" in line) for line in lines] == [False, False, True]
    assert {path.name for path in tmp_path.iterdir()} == {"jobs"}


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm"])
def test_a_video(client: FlaskClient, tmp_path: Path, suffix: str) -> None:
    video = make_video(tmp_path, suffix=suffix)
    job = accepted(client.post("/v1/jobs?frame_step=2", data=video, content_type="video/mp4"))
    work(client)
    lines = lines_of(client, job)
    assert [line["frame"] for line in lines] == [0, 2, 4]
    assert [line["time_s"] for line in lines] == [0.0, 0.2, 0.4]
    assert {line["file"] for line in lines} == {"video"}
    assert lines[0]["image"] == {"width": 64, "height": 48}
    assert client.get(job).get_json()["photos"] == {"done": 3, "failed": 0, "total": 3}


def test_everything_at_once_and_a_broken_video(
    client: FlaskClient, jpeg: bytes, tmp_path: Path
) -> None:
    broken = b"\0\0\0\x18ftypmp42" + bytes(100)
    files = (
        (make_video(tmp_path, frames=2), "clip.mp4"),
        (broken, "broken.mp4"),
        (make_zip({"a.jpg": jpeg, "b.jpg": jpeg}), "photos.zip"),
        (jpeg, "c.jpg"),
    )
    job = accepted(post(client, *files))
    work(client)
    lines = lines_of(client, job)
    files_of_lines = ["clip.mp4", "clip.mp4", "broken.mp4", "a.jpg", "b.jpg", "c.jpg"]
    assert [line["file"] for line in lines] == files_of_lines
    assert lines[2]["error"]["code"] == "image_undecodable"
    assert str(tmp_path) not in lines[2]["error"]["detail"]
    assert client.get(job).get_json()["photos"] == {"done": 5, "failed": 1, "total": 6}


def test_pictures(client: FlaskClient, png: bytes) -> None:
    files = ((png, "p/a.png"), (b"broken", "b.jpg"), (png, "c.png"))
    job = accepted(post(client, *files, query="?pictures=true&style=mask"))
    work(client)
    response = client.get(f"{job}/pictures")
    assert response.content_type == "application/zip"
    with zipfile.ZipFile(BytesIO(response.data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["p/00000-a.jpg", "00002-c.jpg"]
        names = [line["picture"] for line in lines_of(client, job) if "picture" in line]
        assert archive.namelist() == names
        picture = np.asarray(PillowImage.open(BytesIO(archive.read("00002-c.jpg"))).convert("L"))
    masked = lines_of(client, job)[2]["coverage"]["masked_px"]
    assert picture.shape == (48, 64)
    assert abs(int((picture > 127).sum()) - masked) < 0.02 * picture.size


def test_without_pictures_there_are_none(client: FlaskClient, jpeg: bytes) -> None:
    job = accepted(post(client, (jpeg, "a.jpg")))
    work(client)
    assert "pictures" not in client.get(job).get_json()["links"]
    assert "picture" not in lines_of(client, job)[0]
    check_problem(client.get(f"{job}/pictures"), 404, "no_pictures", "pictures=true")


def test_list_and_order(client: FlaskClient, jpeg: bytes) -> None:
    jobs = [accepted(post(client, (jpeg, "a.jpg"))) for _ in range(3)]
    listed = client.get("/v1/jobs").get_json()["jobs"]
    assert [job["links"]["self"] for job in listed] == jobs[::-1]
    assert [job["jobs_before"] for job in listed] == [2, 1, 0]


def test_delete(client: FlaskClient, jpeg: bytes, tmp_path: Path) -> None:
    waiting = accepted(post(client, (jpeg, "a.jpg")))
    assert client.delete(waiting).status_code == 204
    assert client.get(waiting).get_json()["state"] == "cancelled"
    check_problem(client.get(f"{waiting}/results"), 410, "job_gone", "cancelled")
    work(client)
    assert client.get(waiting).get_json()["photos"] == {"done": 0, "failed": 0, "total": 1}

    ended = accepted(post(client, (jpeg, "a.jpg")))
    work(client)
    assert client.delete(ended).status_code == 204
    check_problem(client.get(ended), 404, "unknown_job")
    assert not list((tmp_path / "jobs" / "jobs").iterdir())


def test_an_expired_job(registry: FakeRegistry, tmp_path: Path, jpeg: bytes) -> None:
    client = make_jobs_client(registry, tmp_path, jobs_keep_s=50)
    job = accepted(post(client, (jpeg, "a.jpg")))
    work(client)
    jobs = services_of(client).jobs
    assert jobs
    jobs.tick(60)
    body = client.get(job).get_json()
    assert body["state"] == "expired"
    assert body["photos"]["done"] == 1
    assert set(body["links"]) == {"self"}
    check_problem(client.get(f"{job}/results"), 410, "job_gone", "expired")


def test_no_such_job(client: FlaskClient) -> None:
    for method, path in (("get", ""), ("get", "/results"), ("get", "/pictures"), ("delete", "")):
        response = client.open(f"/v1/jobs/{NO_JOB}{path}", method=method)
        check_problem(response, 404, "unknown_job")


def test_without_a_folder_there_are_no_jobs(registry: FakeRegistry, jpeg: bytes) -> None:
    client = make_client(registry)
    for response in (post(client, (jpeg, "a.jpg")), client.get("/v1/jobs")):
        check_problem(response, 404, "jobs_off", "--jobs-dir")


@pytest.mark.parametrize(
    ("query", "status", "code", "word"),
    [
        ("?model=", 404, "unknown_model", "“”"),
        ("?model=ballon", 404, "unknown_model", "ballon"),
        ("?classes=kites", 422, "unknown_class", "kite"),
        ("?masks=foo", 422, "bad_parameter", "rle"),
        ("?frame_step=0", 422, "bad_parameter", "frame_step"),
        ("?picture=1", 422, "bad_parameter", "Did you mean “pictures”?"),
        ("?masks=rle&masks=none", 422, "bad_parameter", "given 2 times"),
        ("?include=image", 422, "bad_parameter", "include"),
    ],
)
def test_bad_parameters(
    client: FlaskClient, jpeg: bytes, query: str, status: int, code: str, word: str
) -> None:
    check_problem(post(client, (jpeg, "a.jpg"), query=query), status, code, word)
    assert client.get("/v1/jobs").get_json() == {"jobs": []}


def test_bodies_that_are_refused(client: FlaskClient, jpeg: bytes, tmp_path: Path) -> None:
    def send(data: Any, content_type: str | None = None) -> TestResponse:
        return client.post("/v1/jobs", data=data, content_type=content_type)

    check_problem(send(b"{}", "application/json"), 415, "image_type_unsupported", "images=@a.jpg")
    check_problem(send(b""), 422, "image_missing")
    check_problem(send({"images": (BytesIO(b""), "")}), 422, "image_missing")
    check_problem(send(make_zip({"a/": b""})), 422, "image_missing")
    check_problem(send({"image": (BytesIO(jpeg), "a.jpg")}), 422, "bad_parameter", "“image”")
    text = {"images": "text", "other": (BytesIO(jpeg), "a.jpg")}
    check_problem(send(text), 422, "bad_parameter", "not a file")
    check_problem(send({"images": "text"}), 415, "image_type_unsupported", "urlencoded")
    check_problem(send(b"PK\3\4 and no more"), 422, "bad_archive", "damaged")
    check_problem(send(b"--", "multipart/form-data"), 422, "bad_parameter", "boundary")
    for body in (
        b"no form",
        b"--b\r\n\r\nx",
        b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx',
    ):
        response = send(body, "multipart/form-data; boundary=b")
        check_problem(response, 422, "bad_parameter", "damaged or incomplete")
    # Nothing of all that is left.
    assert not list((tmp_path / "jobs" / "jobs").iterdir())
    assert services_of(client).jobs.used_bytes() == 0  # type: ignore[union-attr]


def test_jobs_that_are_too_large(client: FlaskClient, jpeg: bytes, tmp_path: Path) -> None:
    large = client.post("/v1/jobs", data=bytes(500_001))
    check_problem(large, 413, "job_too_large", "MiB")
    many = post(client, *[(b"x", "a.jpg")] * 21)
    check_problem(many, 413, "job_too_large", "20 photos")
    zipped = client.post("/v1/jobs", data=make_zip({f"{i}": jpeg for i in range(21)}))
    check_problem(zipped, 413, "job_too_large", "20 photos")
    two_zips = post(client, *[(make_zip({f"{i}": jpeg for i in range(11)}), "a.zip")] * 2)
    check_problem(two_zips, 413, "job_too_large", "20 photos")
    video = client.post("/v1/jobs", data=make_video(tmp_path, frames=21))
    check_problem(video, 413, "job_too_large", "20 photos or frames")
    fewer = client.post("/v1/jobs?frame_step=2", data=make_video(tmp_path, frames=21))
    assert fewer.status_code == 202


def test_a_photo_that_is_too_large_is_a_line(
    client: FlaskClient, jpeg: bytes, tmp_path: Path
) -> None:
    job = accepted(post(client, (jpeg + bytes(200_000), "large.jpg"), (jpeg, "a.jpg")))
    (upload, _) = sorted((tmp_path / "jobs").rglob("uploads/*"))
    assert upload.stat().st_size == 100_001  # no more than is needed to refuse it
    work(client)
    assert lines_of(client, job)[0]["error"]["code"] == "image_too_large"


def test_large_frames_are_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    client = make_jobs_client(registry, tmp_path, max_pixels=64 * 48 - 1)
    response = client.post("/v1/jobs", data=make_video(tmp_path))
    check_problem(response, 413, "image_too_large", "64 x 48")


def test_playlists_are_no_videos(client: FlaskClient) -> None:
    """ffmpeg would follow them to other files and to the network."""
    playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n"
    for body in (playlist, b"ffconcat version 1.0\nfile /etc/passwd\n"):
        job = accepted(client.post("/v1/jobs", data=body, content_type="video/mp4"))
        work(client)
        assert lines_of(client, job)[0]["error"]["code"] == "image_undecodable"


def test_a_full_store(registry: FakeRegistry, tmp_path: Path, jpeg: bytes) -> None:
    client = make_jobs_client(registry, tmp_path, jobs_max_count=1)
    job = accepted(post(client, (jpeg, "a.jpg")))
    check_problem(post(client, (jpeg, "a.jpg")), 507, "job_store_full", "1 jobs are kept")
    client.delete(job)
    accepted(post(client, (jpeg, "a.jpg")))


def test_each_key_sees_its_own_jobs(registry: FakeRegistry, tmp_path: Path, jpeg: bytes) -> None:
    keys = {"ann": "a" * 16, "bob": "b" * 16}
    client = make_jobs_client(
        registry, tmp_path, api_keys=[f"{name}:{key}" for name, key in keys.items()]
    )

    def ask(name: str, method: str, path: str, **more: Any) -> TestResponse:
        return client.open(path, method=method, headers={"X-API-Key": keys[name]}, **more)

    job = accepted(ask("ann", "post", "/v1/jobs", data=jpeg))
    assert client.get("/v1/jobs").status_code == 401
    assert len(ask("ann", "get", "/v1/jobs").get_json()["jobs"]) == 1
    assert ask("bob", "get", "/v1/jobs").get_json()["jobs"] == []
    for method, path in (("get", ""), ("get", "/results"), ("get", "/pictures"), ("delete", "")):
        check_problem(ask("bob", method, job + path), 404, "unknown_job")
    assert ask("ann", "get", job).get_json()["state"] == "queued"


def test_another_model(client: FlaskClient, jpeg: bytes) -> None:
    job = accepted(post(client, (jpeg, "a.jpg"), query="?model=second"))
    work(client)
    assert client.get(job).get_json()["model"] == "second"
    assert lines_of(client, job)[0]["model"]["name"] == "second"


def test_a_model_that_is_no_longer_served(
    client: FlaskClient, registry: FakeRegistry, jpeg: bytes
) -> None:
    job = accepted(post(client, (jpeg, "a.jpg"), query="?model=second"))
    del registry.predictors["second"]
    work(client)
    body = client.get(job).get_json()
    assert body["state"] == "failed"
    assert body["error"]["code"] == "unknown_model"
    assert "second" in body["error"]["detail"]
    assert lines_of(client, job) == []


def test_a_model_that_cannot_be_loaded_is_waited_for(
    client: FlaskClient, registry: FakeRegistry, jpeg: bytes
) -> None:
    waiting = accepted(post(client, (jpeg, "a.jpg"), query="?model=second"))
    other = accepted(post(client, (jpeg, "a.jpg")))
    registry.failures["second"] = BundleCorruptError("It is damaged.")
    work(client)
    assert client.get(waiting).get_json()["state"] == "queued"
    assert client.get(other).get_json()["state"] == "done"
    registry.failures.clear()
    work(client)
    assert client.get(waiting).get_json()["state"] == "done"


def test_metrics(client: FlaskClient, jpeg: bytes) -> None:
    accepted(post(client, (jpeg, "a.jpg"), (b"broken", "b.jpg")))
    assert 'maskserve_jobs{state="queued"} 1.0' in client.get("/metrics").text
    work(client)
    text = client.get("/metrics").text
    assert 'maskserve_jobs{state="queued"} 0.0' in text
    assert 'maskserve_jobs{state="done"} 1.0' in text
    assert 'maskserve_job_photos_total{outcome="done"} 1.0' in text
    assert 'maskserve_job_photos_total{outcome="failed"} 1.0' in text


def test_a_fault_of_the_server_is_told_without_its_details(
    client: FlaskClient, registry: FakeRegistry, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [EngineError("/secret/path"), RuntimeError("/secret/path")]

    def fail(*_: object, **__: object) -> None:
        raise failures.pop(0)

    monkeypatch.setattr(registry.predictors["balloon"], "predict_timed", fail)
    job = accepted(post(client, (jpeg, "a.jpg"), (jpeg, "b.jpg")))
    work(client)
    lines = lines_of(client, job)
    assert [line["error"]["code"] for line in lines] == ["engine_failed", "error"]
    assert "secret" not in client.get(f"{job}/results").text
    assert client.get(job).get_json()["photos"] == {"done": 0, "failed": 2, "total": 2}
