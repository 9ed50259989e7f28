"""The commands that hand over to other packages: what they pass on, and what they print."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from maskserve.api import server
from maskserve.cli.extras import report_extra, train_extra
from maskserve.core.errors import MissingExtraError
from maskserve.runtime import bundle as bundle_module
from maskserve.runtime.image_io import write_image

Run = Callable[..., CompletedProcess[str]]

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES_OF_EXTRAS = [
    (extra, re.split("[<>=]", requirement)[0])
    for extra in (report_extra, train_extra)
    for requirement in PROJECT["project"]["optional-dependencies"][
        extra.__name__.removesuffix("_extra")
    ]
    if not requirement.startswith("maskserve[")
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set whose only photo shows what the tiny bundle finds best, at 80 x 60."""
    folder = tmp_path / "balloon"
    write_image(folder / "val" / "photo.png", np.full((60, 80, 3), 128, np.uint8))
    region = {
        "shape_attributes": {"name": "rect", "x": 8, "y": 6, "width": 32, "height": 24},
        "region_attributes": {},
    }
    photo = {"filename": "photo.png", "size": -1, "regions": [region], "file_attributes": {}}
    (folder / "val" / "via_region_data.json").write_text(json.dumps({"photo.png-1": photo}))
    return folder


class TestServe:
    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        calls: list[Any] = []
        monkeypatch.setattr(server, "serve", lambda *arguments: calls.append(arguments))
        return calls

    def test_flags_become_settings_and_models(
        self, run: Run, served: list[Any], make_bundle: Callable[[str], Path]
    ) -> None:
        one, two = make_bundle("one"), make_bundle("two")
        result = run("serve", "--model", one, "--model", two, "--host", "0.0.0.0", "--port", 9000)
        assert result.returncode == 0
        ((settings, registry),) = served
        assert (settings.host, settings.port) == ("0.0.0.0", 9000)
        assert registry.names == ("one", "two")

    def test_flags_win_over_the_environment_and_that_over_the_file(
        self,
        run: Run,
        served: list[Any],
        tiny_bundle: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = tmp_path / "serve.toml"
        config.write_text("port = 1001\ndrain_s = 3\nhost = '::1'\n")
        monkeypatch.setenv("MASKSERVE_PORT", "1002")
        monkeypatch.setenv("MASKSERVE_HOST", "::2")
        run("serve", "--model", tiny_bundle, "--config", config, "--port", 1003)
        ((settings, _),) = served
        assert (settings.drain_s, settings.host, settings.port) == (3, "::2", 1003)

    def test_a_misspelt_model_stops_before_serving(self, run: Run, served: list[Any]) -> None:
        assert run("serve", "--model", "no-such-model").returncode == 2
        assert not served


class TestModels:
    def test_what_is_shipped(
        self,
        run: Run,
        make_bundle: Callable[[str], Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        make_bundle("tiny").rename(tmp_path / "tiny")
        (tmp_path / "bundles").mkdir()
        (tmp_path / "tiny").rename(tmp_path / "bundles" / "tiny")
        monkeypatch.setattr(bundle_module, "files", lambda _: tmp_path)
        result = run("models")
        assert result.returncode == 0
        for word in ("tiny", "balloon, kite", "64 px", "MB"):
            assert word in result.stdout

    def test_nothing_is_shipped(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bundle_module, "files", lambda _: tmp_path)
        assert "No model is shipped" in run("models").stdout


class TestEvaluate:
    def test_a_bundle(self, run: Run, data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
        arguments = ("--data", data, "--out", tmp_path / "results", "--precision", "f32")
        result = run("evaluate", tiny_bundle, *arguments)
        assert result.returncode == 0
        assert "100.0" in result.stdout
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
        # The weak second balloon, which is not there, comes after the true one.
        assert metrics["segm"]["AP"] == pytest.approx(100)
        assert metrics["bbox"]["AP50"] == pytest.approx(100)

    def test_the_report_lies_beside_the_numbers(
        self, run: Run, data: Path, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip("matplotlib", reason="needs the extra “report”")
        out = tmp_path / "results"
        result = run("evaluate", tiny_bundle, "--data", data, "--out", out)
        assert result.returncode == 0
        assert str(out / "report.html") in result.stdout
        assert "What goes wrong" in (out / "report.html").read_text(encoding="utf-8")
        (found, *_) = json.loads((out / "predictions.json").read_text())
        assert found["score"] == pytest.approx(0.9, abs=0.01)

    def test_without_matplotlib_the_numbers_are_written_all_the_same(
        self,
        run: Run,
        data: Path,
        tiny_bundle: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in list(sys.modules):
            if name.startswith(("maskserve.reporting", "matplotlib")):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        out = tmp_path / "results"
        result = run("evaluate", tiny_bundle, "--data", data, "--out", out)
        assert result.returncode == 0
        assert "pip install 'maskserve[report]'" in result.stderr
        assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "predictions.json"]

    def test_data_that_is_not_divided_needs_no_split(
        self, run: Run, data: Path, tiny_bundle: Path
    ) -> None:
        assert run("evaluate", tiny_bundle, "--data", data / "val").returncode == 0

    def test_a_split_that_is_not_there(self, run: Run, data: Path, tiny_bundle: Path) -> None:
        result = run("evaluate", tiny_bundle, "--data", data, "--split", "test")
        assert result.returncode == 3
        assert "It has: val" in result.stderr

    def test_data_of_another_name_needs_the_class_name(
        self, run: Run, data: Path, tiny_bundle: Path
    ) -> None:
        arguments = ("evaluate", tiny_bundle, "--data", data.rename(data.with_name("party")))
        result = run(*arguments)
        assert result.returncode == 3
        assert "--class-name" in result.stderr
        assert run(*arguments, "--class-name", "balloon").returncode == 0

    def test_the_attribute_that_names_the_class(
        self, run: Run, data: Path, tiny_bundle: Path
    ) -> None:
        annotations = data / "val" / "via_region_data.json"
        text = annotations.read_text().replace(
            '"region_attributes": {}', '"region_attributes": {"colour": "red", "kind": "balloon"}'
        )
        annotations.write_text(text)
        arguments = ("evaluate", tiny_bundle, "--data", data)
        assert run(*arguments).returncode == 3
        assert run(*arguments, "--class-attribute", "kind").returncode == 0

    def test_the_format(self, run: Run, data: Path, tiny_bundle: Path) -> None:
        (data / "annotations").mkdir()
        (data / "annotations" / "instances_val.json").write_text("{}")
        arguments = ("evaluate", tiny_bundle, "--data", data)
        assert run(*arguments).returncode == 3
        assert run(*arguments, "--format", "via").returncode == 0

    def test_help_says_that_precision_is_of_bundles(self, run: Run) -> None:
        words = " ".join(run("evaluate", "--help").stdout.replace("│", " ").split())
        assert "Applies to bundles" in words
        assert "A run is always measured in float32." in words


class TestCompare:
    @pytest.fixture
    def compare(
        self, run: Run, data: Path, tiny_bundle: Path, make_bundle: Callable[[str], Path]
    ) -> Callable[..., CompletedProcess[str]]:
        models = (tiny_bundle, make_bundle("other"))
        quick = ("--rounds", 1, "--bootstrap", 10, "--precision", "f32")
        return lambda *more: run("compare", *models, "--data", data, *quick, *more)

    def test_a_table_and_three_files(
        self, compare: Callable[..., CompletedProcess[str]], tmp_path: Path
    ) -> None:
        pytest.importorskip("matplotlib", reason="the page needs the extra “report”")
        cited = tmp_path / "cited.toml"
        cited.write_text(
            "[[model]]\nname = 'Theirs'\nsource = 'a paper'\ndata = 'photos'\nsegm = {AP = 12.3}\n"
        )
        result = compare("--out", tmp_path / "compared", "--cite", cited)
        assert result.returncode == 0
        for text in ("tiny-bundle", "other-bundle", "mask AP50", "peak memory", "mask AP 12.3"):
            assert text in result.stdout
        files = sorted(path.name for path in (tmp_path / "compared").iterdir())
        assert files == ["comparison.csv", "comparison.html", "comparison.md"]
        assert "--bootstrap 10" in (tmp_path / "compared" / "comparison.html").read_text()

    def test_nothing_is_cited_unasked(self, compare: Callable[..., CompletedProcess[str]]) -> None:
        result = compare()
        assert result.returncode == 0
        assert "Reported by others" not in result.stdout

    def test_a_wrong_file_is_found_before_the_long_work(
        self, run: Run, tmp_path: Path, data: Path
    ) -> None:
        cite = ("--cite", tmp_path / "nowhere.toml")
        result = run("compare", "no-such-model", "--data", data, *cite)
        assert result.returncode == 2
        assert "nowhere.toml cannot be read" in result.stderr

    def test_classes_that_no_model_finds_exit_with_3(
        self, compare: Callable[..., CompletedProcess[str]]
    ) -> None:
        result = compare("--class-name", "dog")
        assert result.returncode == 3
        assert "tiny-bundle: The model finds “balloon”, “kite”, but" in result.stderr

    def test_the_page_needs_the_extra(
        self,
        compare: Callable[..., CompletedProcess[str]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in [name for name in sys.modules if name.startswith("maskserve.reporting")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        result = compare("--out", tmp_path / "compared")
        assert result.returncode == 5
        assert "pip install 'maskserve[report]'" in result.stderr


class TestTrainExtra:
    @pytest.fixture(autouse=True)
    def no_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(sys.modules):
            if name.startswith(("maskserve.training", "maskserve.models", "maskserve.export")):
                monkeypatch.delitem(sys.modules, name)
        for name in ("torch", "torchvision", "lightning", "onnx"):
            monkeypatch.setitem(sys.modules, name, None)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("train", "--data", "data", "--out", "run"),
            ("export", "run", "--out", "bundle"),
            ("report", "run"),
            ("evaluate", "run", "--data", "{data}"),
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_without_it_the_command_says_how_to_install_it(
        self,
        run: Run,
        arguments: tuple[str, ...],
        data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "settings.json").write_text("{}")
        result = run(*(data if argument == "{data}" else argument for argument in arguments))
        assert result.returncode == 5
        assert "pip install 'maskserve[train]'" in result.stderr


@pytest.mark.parametrize(("extra", "package"), PACKAGES_OF_EXTRAS)
def test_every_package_of_the_extra_is_named_if_it_is_missing(
    extra: Callable[[], AbstractContextManager[None]], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"needs {package},"), extra():
        importlib.import_module(package)


class TestTrainAndExport:
    @pytest.fixture(autouse=True)
    def needs_torch(self) -> None:
        pytest.importorskip("lightning", reason="needs the extra “train”")

    def test_flags_win_over_the_settings_file(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[Any] = []
        monkeypatch.setattr(
            "maskserve.training.train",
            lambda settings, **arguments: calls.append((settings, arguments)),
        )
        config = tmp_path / "recipe.toml"
        config.write_text("steps = 7\nseed = 8\n")
        result = run(
            *("train", "--data", "data", "--out", "run", "--config", config),
            *("--seed", 9, "--model", "resnet50", "--resume"),
            *("--class-attribute", "kind", "--format", "via"),
            *("--log-to", "tensorboard", "--log-to", "mlflow"),
        )
        assert result.returncode == 0
        ((settings, arguments),) = calls
        assert (settings.steps, settings.seed, settings.model) == (7, 9, "resnet50")
        assert (settings.class_attribute, settings.data_format) == ("kind", "via")
        assert settings.loggers == ("tensorboard", "mlflow")
        assert arguments == {"data": Path("data"), "out": Path("run"), "resume": True}

    def test_a_logger_that_is_not_known_exits_with_2(self, run: Run) -> None:
        result = run("train", "--data", "data", "--out", "run", "--log-to", "paper")
        assert result.returncode == 2
        assert "tensorboard" in result.stderr

    def test_a_report_of_a_folder_that_is_no_run_exits_with_6(
        self, run: Run, tmp_path: Path
    ) -> None:
        result = run("report", tmp_path)
        assert result.returncode == 6
        assert "settings.json" in result.stderr

    def test_a_bad_setting_exits_with_2(self, run: Run, tmp_path: Path) -> None:
        config = tmp_path / "recipe.toml"
        config.write_text("stepz = 7\n")
        result = run("train", "--data", "data", "--out", "run", "--config", config)
        assert result.returncode == 2
        assert "steps" in result.stderr

    @pytest.mark.parametrize("fraction", [0, 1])
    def test_a_share_that_leaves_one_side_empty_exits_with_2(self, run: Run, fraction: int) -> None:
        result = run("train", "--data", "data", "--out", "run", "--val-fraction", fraction)
        assert result.returncode == 2
        assert "val_fraction" in result.stderr

    def test_a_folder_that_is_no_run_exits_with_6(self, run: Run, tmp_path: Path) -> None:
        result = run("export", tmp_path / "nowhere", "--out", tmp_path / "bundle")
        assert result.returncode == 6
        assert not (tmp_path / "bundle").exists()
