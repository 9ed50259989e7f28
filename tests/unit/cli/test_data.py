"""``maskserve data``: looking after photos, dividing, rendering and downloading them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from maskserve import datasets
from maskserve.core.errors import DownloadError
from maskserve.datasets import Release, available_splits, load_dataset
from maskserve.datasets.synthetic import write_via_dataset

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    root = tmp_path / "toys"
    write_via_dataset(root, train=4, val=1, size=(48, 64), instances_per_photo=2)
    return root


class TestCheck:
    def test_sound_data(self, run: Run, toys: Path) -> None:
        result = run("data", "check", toys)
        assert (result.returncode, result.stderr) == (0, "")
        assert f"{toys} has no errors." in result.stdout
        for row in (["photos", "4", "1"], ["instances", "8", "2"]):
            assert row in [line.replace("│", " ").split() for line in result.stdout.splitlines()]

    def test_errors_exit_with_3_and_the_rest_is_printed(self, run: Run, toys: Path) -> None:
        shutil.copy(toys / "train/shapes_000.png", toys / "val/shapes_004.png")
        (toys / "train/shapes_001.png").write_text("broken")
        result = run("data", "check", toys)
        assert result.returncode == 3
        assert "has 2 errors:" in result.stderr
        assert "train/shapes_001.png: is not a JPEG, PNG or WebP photo" in result.stderr
        assert "val/shapes_004.png: is the same file as train/shapes_000.png" in result.stderr
        assert "photos" in result.stdout

    def test_warnings_alone_are_no_failure(self, run: Run, toys: Path) -> None:
        file = toys / "val/via_region_data.json"
        shape = {"name": "polygon", "all_points_x": [5, 40, 40, 5], "all_points_y": [5, 40, 5, 40]}
        region = {"shape_attributes": shape, "region_attributes": {}}
        photo = {"filename": "shapes_004.png", "size": 1, "regions": [region]}
        file.write_text(json.dumps({"a": {**photo, "file_attributes": {}}}))
        result = run("data", "check", toys)
        assert result.returncode == 0
        assert "1 warning, which may be meant:" in result.stdout
        assert "crosses itself" in result.stdout

    def test_no_folder(self, run: Run, tmp_path: Path) -> None:
        assert run("data", "check", tmp_path / "nowhere").returncode == 3


class TestSplit:
    def test_parts_are_written_and_counted(self, run: Run, toys: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        flags = ("--from-split", "train", "--val", 0.25, "--test", 0.25)
        result = run("data", "split", toys, "--out", out, *flags)
        assert result.returncode == 0
        assert ["photos", "2", "1", "1"] in [
            line.replace("│", " ").split() for line in result.stdout.splitlines()
        ]
        assert available_splits(out) == ("test", "train", "val")
        assert len(load_dataset(out, split="train")) == 2

    def test_divided_data_needs_to_be_told_what(self, run: Run, toys: Path, tmp_path: Path) -> None:
        result = run("data", "split", toys, "--out", tmp_path / "out")
        assert result.returncode == 3
        assert "is divided into train, val" in result.stderr

    def test_out_must_lie_elsewhere(self, run: Run, toys: Path) -> None:
        result = run("data", "split", toys, "--from-split", "train", "--out", toys / "out")
        assert result.returncode == 2
        assert not (toys / "out").exists()


class TestSynth:
    def test_photos_are_rendered(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "rendered"
        flags = ("--photos", 2, "--seed", 3, "--size", "64x96", "--processes", 1)
        result = run("data", "synth", "--out", out, *flags)
        assert result.returncode == 0
        assert f"Written to {out}" in result.stdout
        sizes = {sample.image_size for sample in load_dataset(out).samples}
        assert sizes <= {(64, 96), (96, 64)}

    @pytest.mark.parametrize("size", ["64", "64x", "axb", "64x96x3"])
    def test_size_that_is_none(self, run: Run, tmp_path: Path, size: str) -> None:
        result = run("data", "synth", "--out", tmp_path / "out", "--size", size)
        assert result.returncode == 2
        assert "as 480x640" in result.stderr


class TestFetch:
    def test_what_is_asked_for_is_fetched(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pretend(release: Release, out: Path, *, on_progress: Callable[..., None]) -> None:
            on_progress(1_000_000, None)
            on_progress(2_000_000, 2_000_000)
            assert release.url.endswith("/balloon_dataset.zip")

        monkeypatch.setattr(datasets, "fetch_release", pretend)
        result = run("data", "fetch", "balloon", "--out", tmp_path / "balloon")
        assert result.returncode == 0
        assert "All files are as they were published." in result.stdout

    def test_no_connection(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise DownloadError("It cannot be reached.", hint="Check the connection.")

        monkeypatch.setattr(datasets, "fetch_release", fail)
        result = run("data", "fetch", "balloon", "--out", tmp_path / "balloon")
        assert result.returncode == 7
        assert "It cannot be reached.\nCheck the connection." in result.stderr

    def test_unknown_name(self, run: Run, tmp_path: Path) -> None:
        assert run("data", "fetch", "ballon", "--out", tmp_path / "x").returncode == 2
