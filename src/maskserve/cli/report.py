"""What the command line says: results on stdout, errors and progress on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from maskserve.core.errors import DatasetError, MaskserveError

__all__ = ["make_console", "make_progress", "report_error"]


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: file names may hold what looks like markup."""
    return Console(stderr=stderr, markup=False, highlight=False)


def report_error(error: MaskserveError, console: Console | None = None) -> None:
    """Print what was wrong and what to do about it, without a traceback.

    Args:
        error: All of its problems are listed, if it has some.
        console: Where to print; stderr by default.
    """
    lines = [Text.assemble(("Error: ", "bold red"), error.message)]
    if isinstance(error, DatasetError):
        lines += [Text(f"  {problem}") for problem in error.problems]
    if error.hint:
        lines.append(Text(error.hint))
    (console or make_console(stderr=True)).print(*lines, sep="\n", soft_wrap=True)


def make_progress() -> Progress:
    """A progress bar on stderr, if that is a terminal."""
    console = make_console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # where it would leave an empty line
    )
