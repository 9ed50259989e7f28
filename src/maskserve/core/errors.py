"""Every error that maskserve raises on purpose.

    MaskserveError
    ├── ParameterError              a value that the caller chose is not allowed
    │   ├── UnknownClassError
    │   ├── UnknownModelError
    │   └── SettingsError           a settings file, an environment variable, a flag
    ├── ImageError
    │   ├── ImageMissingError       there is no photo where one was expected
    │   ├── ImageDecodeError        damaged, truncated or not a photo at all
    │   ├── ImageTypeError          a photo of a type that is not supported
    │   └── ImageTooLargeError      too many bytes or pixels
    ├── DatasetError                carries every problem that was found, not the first
    ├── BundleError
    │   ├── BundleMissingError
    │   ├── BundleCorruptError
    │   └── BundleVersionError      written by a newer maskserve
    ├── MissingExtraError           an optional dependency is not installed
    ├── DownloadError               a file on the internet cannot be had
    ├── OutputError                 a result cannot be written where it was asked for
    ├── TrainingError
    ├── ExportError
    │   └── ParityError             the exported model answers differently
    ├── EngineError                 the inference engine failed on a valid photo
    ├── ServerUnreachableError      nobody answers at the address of a server
    ├── ServerNotReadyError         the model is still loading, or the server is stopping
    ├── ServerFullError
    ├── DeadlineError
    └── JobError                    a job of many photos cannot be accepted, found or finished
        ├── JobsOffError            the server keeps no jobs
        ├── UnknownJobError
        ├── NoPicturesError         none were asked for
        ├── JobGoneError            its photos or results are no longer kept
        ├── JobTooLargeError        more photos or bytes than a job may have
        ├── ArchiveError            a ZIP that cannot be used
        └── JobStoreFullError       no room is left for jobs

``core`` knows neither HTTP nor exit codes: ``maskserve.api.problems`` and
``maskserve.cli.exit_codes`` own one table each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "ArchiveError",
    "BundleCorruptError",
    "BundleError",
    "BundleMissingError",
    "BundleVersionError",
    "DatasetError",
    "DatasetProblem",
    "DeadlineError",
    "DownloadError",
    "EngineError",
    "ExportError",
    "ImageDecodeError",
    "ImageError",
    "ImageMissingError",
    "ImageTooLargeError",
    "ImageTypeError",
    "JobError",
    "JobGoneError",
    "JobStoreFullError",
    "JobTooLargeError",
    "JobsOffError",
    "MaskserveError",
    "MissingExtraError",
    "NoPicturesError",
    "OutputError",
    "ParameterError",
    "ParityError",
    "ServerFullError",
    "ServerNotReadyError",
    "ServerUnreachableError",
    "SettingsError",
    "TrainingError",
    "UnknownClassError",
    "UnknownJobError",
    "UnknownModelError",
]


class MaskserveError(Exception):
    """Base of all errors of this package.

    Args:
        message: What was wrong and where, in words for a person.
        hint: What to do about it, where that is known.

    Attributes:
        code: Stable identifier for programs; never reworded.
        title: Short summary of the kind of error; the same for every occurrence.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ParameterError(MaskserveError):
    code = "bad_parameter"
    title = "A parameter is not valid"


class UnknownClassError(ParameterError):
    code = "unknown_class"
    title = "The model does not know this class"


class UnknownModelError(ParameterError):
    code = "unknown_model"
    title = "There is no model of this name"


class SettingsError(ParameterError):
    code = "bad_settings"
    title = "The settings are not valid"


class ImageError(MaskserveError):
    code = "bad_image"
    title = "The photo cannot be used"


class ImageMissingError(ImageError):
    code = "image_missing"
    title = "There is no photo in the request"


class ImageDecodeError(ImageError):
    code = "image_undecodable"
    title = "The photo cannot be decoded"


class ImageTypeError(ImageError):
    code = "image_type_unsupported"
    title = "This image type is not supported"


class ImageTooLargeError(ImageError):
    code = "image_too_large"
    title = "The photo is too large"


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """One thing that is wrong with a data set.

    Attributes:
        where: File, and region or annotation inside it, as the user knows them.
        what: What is wrong and, where it helps, what to do.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class DatasetError(MaskserveError):
    """A data set that cannot be used, with all problems that were found in it.

    Args:
        message: Summary for a person.
        problems: Everything that was found; may be empty when the folder itself is at fault.
    """

    code = "bad_dataset"
    title = "The data set has problems"

    _shown = 20

    def __init__(
        self, message: str, *, problems: Sequence[DatasetProblem] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines += [f"  {problem}" for problem in self.problems[: self._shown]]
        if len(self.problems) > self._shown:
            lines.append(f"  … and {len(self.problems) - self._shown} more")
        return "\n".join(lines)


class BundleError(MaskserveError):
    code = "bad_bundle"
    title = "The model bundle cannot be used"


class BundleMissingError(BundleError):
    code = "bundle_missing"
    title = "There is no model bundle at this place"


class BundleCorruptError(BundleError):
    code = "bundle_corrupt"
    title = "The model bundle is damaged"


class BundleVersionError(BundleError):
    code = "bundle_too_new"
    title = "The model bundle was written by a newer maskserve"


class MissingExtraError(MaskserveError):
    code = "missing_extra"
    title = "An optional part of maskserve is not installed"


class DownloadError(MaskserveError):
    code = "download_failed"
    title = "The download failed"


class OutputError(MaskserveError):
    code = "output_not_writable"
    title = "The result cannot be written"


class TrainingError(MaskserveError):
    code = "training_failed"
    title = "The training failed"


class ExportError(MaskserveError):
    code = "export_failed"
    title = "The export failed"


class ParityError(ExportError):
    code = "parity_failed"
    title = "The exported model does not answer like the trained one"


class EngineError(MaskserveError):
    code = "engine_failed"
    title = "The inference engine failed"


class ServerUnreachableError(MaskserveError):
    code = "server_unreachable"
    title = "The server does not answer"


class ServerNotReadyError(MaskserveError):
    code = "server_not_ready"
    title = "The server is not ready"


class ServerFullError(MaskserveError):
    code = "server_full"
    title = "The server is busy"


class DeadlineError(MaskserveError):
    code = "deadline_passed"
    title = "The request took too long"


class JobError(MaskserveError):
    code = "bad_job"
    title = "The job cannot be done"


class JobsOffError(JobError):
    code = "jobs_off"
    title = "This server keeps no jobs"


class UnknownJobError(JobError):
    code = "unknown_job"
    title = "There is no such job"


class NoPicturesError(JobError):
    code = "no_pictures"
    title = "The job has no pictures"


class JobGoneError(JobError):
    code = "job_gone"
    title = "The job's files are no longer kept"


class JobTooLargeError(JobError):
    code = "job_too_large"
    title = "The job is too large"


class ArchiveError(JobError):
    code = "bad_archive"
    title = "The ZIP cannot be used"


class JobStoreFullError(JobError):
    code = "job_store_full"
    title = "There is no room for more jobs"
