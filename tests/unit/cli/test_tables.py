"""``maskserve predict --tables``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from batch_runs import rows_of

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def found(photos: Path, tiny_bundle: Path, tmp_path: Path) -> tuple[object, ...]:
    """Arguments that work."""
    return "predict", photos, "--model", tiny_bundle, "--out", tmp_path / "found", "--tables"


def test_tables_and_a_summary_of_them(run: Run, found: tuple[object, ...], tmp_path: Path) -> None:
    result = run(*found, "--pictures", "--style", "mask")
    assert result.returncode == 0
    photos, instances = rows_of(tmp_path / "found")
    assert [Path(row["photo"]).name for row in photos] == ["a.png", "b.jpg"]
    assert [row["picture"] for row in photos] == [
        "pictures/part-00000/00000000.png",
        "pictures/part-00000/00000001.png",
    ]
    assert [row["class"] for row in instances] == ["balloon", "kite"] * 2
    assert "40.00" in result.stdout
    assert "Other files that lie there: 1." in result.stdout
    again = run(*found, "--pictures", "--style", "mask")
    assert again.returncode == 0
    assert "2 photos were done before" in again.stdout


def test_broken_photos_are_counted_and_the_code_is_3(
    run: Run, found: tuple[object, ...], photos: Path, tmp_path: Path
) -> None:
    (photos / "aa.jpg").write_text("broken")
    for _ in range(2):  # also where the run was done before
        result = run(*found)
        assert result.returncode == 3
        assert "error_message" in result.stdout
    codes = [row["error_code"] for row in rows_of(tmp_path / "found")[0]]
    assert codes == [None, "image_undecodable", None]


def test_a_path_that_is_not_there_begins_nothing(
    run: Run, found: tuple[object, ...], tmp_path: Path
) -> None:
    result = run(*found, tmp_path / "gone.jpg")
    assert result.returncode == 3
    assert "gone.jpg" in result.stderr
    assert not (tmp_path / "found").exists()


def test_other_settings_exit_with_2(run: Run, found: tuple[object, ...]) -> None:
    run(*found)
    result = run(*found, "--min-score", 0.1)
    assert result.returncode == 2
    assert "min_score (0.5, now 0.1)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("s3://roofs/a.jpg", "--out", "out"), "Add --tables"),
        (("a.jpg", "--out", "s3://roofs/out"), "Add --tables"),
        (("a.jpg", "--out", "out", "--tables", "--json"), "--json"),
        (("ftp://roofs/a.jpg", "--out", "out", "--tables"), "ftp://roofs/a.jpg"),
        (("a.jpg", "--out", "ftp://roofs/out", "--tables"), "ftp://roofs/out"),
    ],
)
def test_what_cannot_be_meant_exits_with_2(
    run: Run, arguments: tuple[str, ...], words: str
) -> None:
    result = run("predict", *arguments)
    assert result.returncode == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("package", "modules", "flags", "extra"),
    [
        ("pyarrow", ("maskserve.batch.run", "maskserve.batch.rows"), (), "maskserve[batch]"),
        ("ray", ("maskserve.cluster.batch",), ("--on", "ray"), "maskserve[ray]"),
    ],
)
def test_a_missing_extra_is_named(
    run: Run,
    found: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    modules: tuple[str, ...],
    flags: tuple[str, ...],
    extra: str,
) -> None:
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    result = run(*found, *flags)
    assert result.returncode == 5
    assert extra in result.stderr
