"""Options that imports have in common, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskserve.cli.report import make_console
from maskserve.core.errors import ParameterError

if TYPE_CHECKING:
    from maskserve.export import Imported

__all__ = [
    "ArithmeticOption",
    "BundleOption",
    "ClassesOption",
    "DescriptionOption",
    "LicenceOption",
    "MinScoreOption",
    "NameOption",
    "PhotoOption",
    "StoredOption",
    "print_imported",
    "read_class_names",
    "show_steps",
]

_CLASSES_SHOWN = 5

ArithmeticOption = Annotated[
    Literal["f32", "auto"],
    typer.Option(
        help="How the bundle is served: f32 keeps the model's answers, auto is the fastest that "
        "the processor has, such as bfloat16."
    ),
]

BundleOption = Annotated[
    Path,
    typer.Option(
        metavar="BUNDLE",
        help="Where to put the bundle: a folder or a .zip.",
        show_default=False,
    ),
]

ClassesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES|FILE",
        help="Names of the classes in the order of training: separated by commas, or a text "
        "file with one a line. May be repeated.",
        show_default=False,
    ),
]

NameOption = Annotated[
    str | None, typer.Option(help="Name of the model in the API. By default the bundle's.")
]

DescriptionOption = Annotated[
    str, typer.Option(help="One sentence about the model, for the API.", show_default=False)
]

LicenceOption = Annotated[str, typer.Option(help="Licence of the weights, such as Apache-2.0.")]

MinScoreOption = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Threshold where a request names none. By default the model's own."
    ),
]

PhotoOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="A photo of what the model finds, to compare its answers by; may be repeated. "
        "By default rendered scenes.",
        show_default=False,
    ),
]

StoredOption = Annotated[
    Literal["f32", "f16"],
    typer.Option(help="How weights are stored: f16 halves the file and rounds them."),
]


def read_class_names(values: Sequence[str] | None) -> list[str] | None:
    """Names from the option ``--classes``; None if it was not given.

    Raises:
        ParameterError: A file cannot be read, or a name is empty.
    """
    if not values:
        return None
    names: list[str] = []
    for value in values:
        path = Path(value)
        if path.suffix == ".txt" or (path.is_file() and "," not in value):
            names += _read_lines(path)
        else:
            names += [name.strip() for name in value.split(",")]
    if not all(names):
        raise ParameterError(f"--classes has a name that is empty: {', '.join(values)}.")
    return names


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path} is not a text file in UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]


@contextmanager
def show_steps() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, if that is a terminal."""
    with make_console(stderr=True).status("") as status:
        yield status.update


def print_imported(imported: Imported, out: Path) -> None:
    """Say what was made, how sure that is, and what to do next."""
    from maskserve.reporting.wording import quantity

    manifest, compared = imported.bundle.manifest, imported.bundle.compared
    shown = ", ".join(manifest.classes[:_CLASSES_SHOWN])
    more = len(manifest.classes) - _CLASSES_SHOWN
    preprocess = manifest.preprocess
    lines = [
        f"Wrote {out} with the model “{manifest.name}”, a Mask R-CNN on a {manifest.backbone}.",
        f"Classes: {shown}" + (f" and {more} more" if more > 0 else ""),
        f"Photos are scaled to {preprocess.short_side_px} px on the shorter side, up to "
        f"{preprocess.max_side_px} px on the longer one.",
        f"Threshold: {manifest.postprocess.min_score:g}, unless a request names one.",
    ]
    if compared:
        lines.append(
            f"Exported and original model agree on {quantity(compared, 'instance')} in photos to "
            "compare by."
        )
    else:
        lines.append(
            "Nothing was found in the photos to compare by: name some with --photo that show "
            "what the model looks for."
        )
    if not imported.named:
        lines.append("The classes' names are not known: give them with --classes.")
    lines.append(f"Next: maskserve serve --model {out}")
    make_console().print("\n".join(lines), soft_wrap=True)
