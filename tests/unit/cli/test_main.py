from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

import maskserve
from maskserve.cli import report
from maskserve.core.errors import DatasetError, DatasetProblem, MaskserveError

Run = Callable[..., CompletedProcess[str]]


def test_the_version(run: Run) -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"maskserve {maskserve.__version__}\n")


def test_help_without_arguments_names_every_command(run: Run) -> None:
    result = run()
    for command in ("serve", "predict", "train", "evaluate", "export", "data", "models"):
        assert command in result.stdout + result.stderr


def test_an_unknown_flag_exits_with_2(run: Run) -> None:
    assert run("predict", "--colour", "red").returncode == 2


def test_an_error_of_ours_is_a_message_and_no_traceback(run: Run) -> None:
    result = run("predict", "photo.jpg", "--out", "drawn", "--model", "no-such-model")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: There is no model “no-such-model”")
    assert "Traceback" not in result.stderr


def test_message_and_hint_stand_on_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a [bold] word " * 20
    report.report_error(MaskserveError(long.strip() + ".", hint="Mend it."))
    assert capsys.readouterr().err.splitlines() == [f"Error: {long.strip()}.", "Mend it."]


def test_all_problems_of_a_data_set_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [DatasetProblem(f"photo {i}", "is missing") for i in range(30)]
    report.report_error(DatasetError("30 problems:", problems=problems))
    assert capsys.readouterr().err.splitlines()[-1] == "  photo 29: is missing"
