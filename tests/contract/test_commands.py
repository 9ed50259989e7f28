"""Every command teaches how it is used, in its help and in the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from maskserve.cli.main import app

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(command: Any, path: str = "maskserve") -> Iterator[tuple[str, Any]]:
    """Every command with its full name, but no groups."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")


ALL = dict(commands(typer.main.get_command(app)))


def test_the_commands_are_those_of_the_interface() -> None:
    assert set(ALL) == {
        "maskserve benchmark",
        "maskserve compare",
        "maskserve data check",
        "maskserve data convert",
        "maskserve data fetch",
        "maskserve data split",
        "maskserve data subset",
        "maskserve data synth",
        "maskserve evaluate",
        "maskserve export",
        "maskserve import detectron2",
        "maskserve import torchvision",
        "maskserve models",
        "maskserve predict",
        "maskserve quantize",
        "maskserve report",
        "maskserve serve",
        "maskserve train",
    }


@pytest.mark.parametrize("name", ALL)
def test_help_has_a_sentence_and_an_example(name: str) -> None:
    text = ALL[name].help
    assert text, f"{name} has no help"
    assert text.splitlines()[0].endswith("."), f"{name} does not begin with a sentence"
    example = [line for line in text.splitlines() if line.startswith(f"    {name}")]
    assert example, f"the help of {name} shows no example of it"
    too_long = [line for line in text.splitlines() if line.startswith("    ") and len(line) > 80]
    assert not too_long, "an example would be broken in a terminal of 80 columns"


@pytest.mark.parametrize("name", ALL)
def test_every_option_and_argument_has_help(name: str) -> None:
    silent = [parameter.name for parameter in ALL[name].params if not parameter.help]
    assert not silent


@pytest.mark.parametrize("name", ALL)
def test_the_documentation_has_every_command_and_flag(name: str) -> None:
    if not DOCUMENTATION.is_file():
        pytest.skip("docs/cli.md is not written yet")
    text = DOCUMENTATION.read_text(encoding="utf-8")
    assert name in text
    for parameter in ALL[name].params:
        for flag in parameter.opts:
            if flag.startswith("--"):
                assert flag in text, f"docs/cli.md lacks {flag} of {name}"
