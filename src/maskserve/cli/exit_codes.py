"""What the shell gets to know about an error."""

from __future__ import annotations

from maskserve.core.errors import (
    BundleError,
    DatasetError,
    DeadlineError,
    DownloadError,
    EngineError,
    ExportError,
    ImageError,
    JobError,
    MaskserveError,
    MissingExtraError,
    OutputError,
    ParameterError,
    ServerFullError,
    ServerNotReadyError,
    ServerUnreachableError,
    TrainingError,
)

__all__ = ["EXIT_CODES", "exit_code_of"]

EXIT_CODES: dict[type[MaskserveError], int] = {
    ParameterError: 2,  # as for a flag that does not exist
    ImageError: 3,
    DatasetError: 3,
    BundleError: 4,
    MissingExtraError: 5,
    TrainingError: 6,
    ExportError: 6,
    EngineError: 7,
    OutputError: 7,
    DownloadError: 7,
    ServerUnreachableError: 7,
    # Of the server alone; they reach the shell only if something is wrong with us.
    ServerNotReadyError: 1,
    ServerFullError: 1,
    DeadlineError: 1,
    JobError: 1,
}
"""Exit code by kind of error; it holds for the kinds below each as well."""


def exit_code_of(error: MaskserveError) -> int:
    """The exit code of an error: that of its nearest kind in :data:`EXIT_CODES`."""
    return next(EXIT_CODES[kind] for kind in type(error).mro() if kind in EXIT_CODES)
