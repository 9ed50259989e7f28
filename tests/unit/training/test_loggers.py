from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskserve.core.errors import MissingExtraError
from maskserve.training import loggers
from maskserve.training.loggers import LoggerName, make_loggers

CLASSES: dict[LoggerName, str] = {
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_missing_package_is_named(
    name: LoggerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(loggers, CLASSES[name], missing)
    with pytest.raises(MissingExtraError, match=name) as caught:
        make_loggers([name], tmp_path, model="balloon", version="start_0")
    assert caught.value.hint == f"Install it with: pip install {name}"


@pytest.mark.parametrize("name", CLASSES)
def test_files_go_into_the_run_folder_and_starts_are_told_apart(
    name: LoggerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        loggers, CLASSES[name], lambda *args, **kwargs: calls.append(f"{args} {kwargs}")
    )
    make_loggers([name], tmp_path / "run", model="balloon", version="start_3")
    (call,) = calls
    assert str(tmp_path / "run") in call
    assert "start_3" in call


def test_none_are_needed(tmp_path: Path) -> None:
    assert make_loggers([], tmp_path, model="balloon", version="start_0") == []


def test_a_server_for_mlflow_takes_the_place_of_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        loggers, "MLFlowLogger", lambda *args, **kwargs: calls.append(f"{args} {kwargs}")
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    make_loggers(["mlflow"], tmp_path / "run", model="balloon", version="start_0")
    (call,) = calls
    assert "tracking_uri" not in call
    assert not (tmp_path / "run").exists()
