"""``maskserve import`` and ``export --format``: what they pass on, print and refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from maskserve.cli.import_options import read_class_names
from maskserve.core.errors import ParameterError
from maskserve.runtime.bundle import read_manifest

Run = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["mug, spoon"], ["mug", "spoon"]),
        (["mug", "spoon,plate"], ["mug", "spoon", "plate"]),
        (["names.txt"], ["traffic light", "mug"]),
        (None, None),
    ],
)
def test_names_come_from_the_line_or_from_a_file(
    values: list[str] | None,
    names: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("traffic light\n\n mug \n")
    assert read_class_names(values) == names


@pytest.mark.parametrize(
    ("value", "words"), [("mug,,spoon", "empty"), ("nowhere.txt", "nowhere.txt cannot be read")]
)
def test_names_that_cannot_be_meant_are_refused(value: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        read_class_names([value])


class TestCommands:
    @pytest.fixture(autouse=True)
    def needs_torch(self) -> None:
        pytest.importorskip("lightning", reason="needs the extra “train”")

    @pytest.fixture
    def calls(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        from maskserve import export  # noqa: PLC0415

        calls: list[Any] = []

        def imported(*files: object, **options: Any) -> export.Imported:
            calls.append((files, options))
            written = export.WrittenBundle(read_manifest(tiny_bundle), compared=len(calls) - 1)
            return export.Imported(written, named=len(calls) > 1)

        monkeypatch.setattr(export, "import_detectron2", imported)
        monkeypatch.setattr(export, "import_torchvision", imported)
        return calls

    def test_options_are_passed_on_and_the_next_command_is_named(
        self, run: Run, calls: list[Any]
    ) -> None:
        detectron2 = ("import", "detectron2", "--config", "c.yaml", "--weights", "w.pth")
        options = ("--out", "b.zip", "--classes", "mug,spoon", "--min-score", 0.4)
        doubtful = run(*detectron2, *options, "--photo", "a.jpg", "--photo", "b.jpg")
        sure = run("import", "torchvision", "maskrcnn_resnet50_fpn", "--out", "b.zip")

        assert (doubtful.returncode, sure.returncode) == (0, 0)
        (files, keywords), (words, _) = calls
        assert files == (Path("c.yaml"), Path("w.pth"), Path("b.zip"))
        assert keywords["classes"] == ["mug", "spoon"]
        assert keywords["options"].photos == (Path("a.jpg"), Path("b.jpg"))
        assert keywords["options"].min_score == 0.4
        assert words == ("maskrcnn_resnet50_fpn", Path("b.zip"))
        assert "give them with --classes" in doubtful.stdout
        assert "Nothing was found" in doubtful.stdout
        assert "agree on 1 instance in" in sure.stdout
        assert "--classes" not in sure.stdout
        for result in (doubtful, sure):
            assert result.stdout.endswith("Next: maskserve serve --model b.zip\n")

    def test_missing_files_exit_with_2(self, run: Run, tmp_path: Path) -> None:
        files = ("--config", tmp_path / "c.yaml", "--weights", tmp_path / "w.pth")
        result = run("import", "detectron2", *files, "--out", tmp_path / "b")
        assert result.returncode == 2
        assert "c.yaml cannot be read" in result.stderr

    def test_options_of_bundles_do_not_suit_detectron2(self, run: Run, tmp_path: Path) -> None:
        words = ("--out", tmp_path / "out", "--format", "detectron2", "--licence", "MIT")
        result = run("export", tmp_path, *words)
        assert result.returncode == 2
        assert "--licence: a model for Detectron2" in result.stderr
