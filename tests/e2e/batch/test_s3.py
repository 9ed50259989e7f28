"""Photos and tables in object storage, which a server of the package moto stands in for."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_runs import command, environment, make_photos, rows_of
from maskserve.batch.rows import Row

pytest.importorskip("s3fs", reason="the extra “s3” is not installed")
moto_server = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

WAIT_S = 300
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Bucket:
    """A bucket that holds photos, and the environment of processes that are to find it."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.env = environment(home) | CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self._client.create_bucket(Bucket="roofs")

    def upload(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*.*"):
            key = f"{prefix}/{path.relative_to(folder)}"
            self._client.put_object(Bucket="roofs", Key=key, Body=path.read_bytes())
        self._client.put_object(Bucket="roofs", Key=f"{prefix}/empty folder/", Body=b"")
        self._client.put_object(Bucket="roofs", Key=f"{prefix}-beside/a.png", Body=b"")

    def keys(self, prefix: str) -> list[str]:
        listed = self._client.list_objects_v2(Bucket="roofs", Prefix=prefix)
        return [found["Key"] for found in listed.get("Contents", ())]

    def download(self, prefix: str, folder: Path) -> Path:
        for key in self.keys(f"{prefix}/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._client.get_object(Bucket="roofs", Key=key)["Body"].read())
        return folder

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = Bucket(f"http://{host}:{port}", tmp_path / "cache")
    yield bucket
    bucket.close()
    server.stop()


def nameless(rows: tuple[list[Row], list[Row]], prefix: str) -> tuple[list[Row], list[Row]]:
    """The rows with what follows the prefix as the photos' names, in order of these."""
    photos, instances = (
        [
            {**row, "photo": row["photo"].removeprefix(prefix), "photo_index": 0, "picture": None}
            for row in table
        ]
        for table in rows
    )
    photos.sort(key=lambda row: row["photo"])
    instances.sort(key=lambda row: (row["photo"], row["instance"]))
    return photos, instances


@pytest.mark.parametrize("on", ["here", "ray"])
def test_from_bucket_to_bucket_with_a_kill(
    tmp_path: Path, tiny_bundle: Path, bucket: Bucket, on: str, request: pytest.FixtureRequest
) -> None:
    if on == "ray":
        pytest.importorskip("ray", reason="the extra “ray” is not installed")
    generator = random.Random(request.config.getoption("--seed"))
    photos = make_photos(tmp_path / "photos", 16)
    (photos / "0").rename(photos / "ä + %20?#")
    bucket.upload(photos, "2026/may")
    options = ("--model", tiny_bundle, "--part-photos", 4, "--pictures", "--out")
    local = command(photos, *options, tmp_path / "here")
    assert subprocess.run(local, env=bucket.env, check=False, timeout=WAIT_S).returncode == 3

    arguments = command("s3://roofs/2026/may", *options, "s3://roofs/found/may/", on=on)
    if on == "here":
        process = subprocess.Popen(arguments, env=bucket.env)
        wanted = generator.randint(0, 28)
        while process.poll() is None and len(bucket.keys("found/")) < wanted:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert subprocess.run(arguments, env=bucket.env, check=False, timeout=WAIT_S).returncode == 3
    found = bucket.download("found/may", tmp_path / "found")
    assert len(list(found.rglob("pictures/*/*.png"))) == 16
    expected = nameless(rows_of(tmp_path / "here"), str(photos))
    assert nameless(rows_of(found), "s3://roofs/2026/may") == expected


@pytest.mark.parametrize(
    ("address", "out", "words"),
    [
        ("s3://nowhere/x", "found", "s3://nowhere/x cannot be read"),
        ("s3://roofs/nothing", "found", "nothing to read"),
        ("photos", "s3://nowhere/found", "s3://nowhere/found"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, tiny_bundle: Path, bucket: Bucket, address: str, out: str, words: str
) -> None:
    make_photos(tmp_path / "photos", 1)
    arguments = command(address, "--model", tiny_bundle, "--out", out)
    done = subprocess.run(
        arguments, env=bucket.env, check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode in (3, 7)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_reached_stops_the_run_and_makes_no_rows(
    tmp_path: Path, tiny_bundle: Path, bucket: Bucket
) -> None:
    photos = make_photos(tmp_path / "photos", 10)
    bucket.upload(photos, "2026")
    arguments = command("s3://roofs/2026", "--model", tiny_bundle, "--out", tmp_path / "found")
    env = bucket.env | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    done = subprocess.run(arguments, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 7
    assert "s3://roofs/2026 cannot be read" in done.stderr
    assert not (tmp_path / "found").exists()
