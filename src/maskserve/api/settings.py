"""Settings of the server: defaults < TOML file < environment < flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from maskserve.core.categories import nearest_name
from maskserve.core.errors import SettingsError
from maskserve.runtime.bundle import shipped_bundles
from maskserve.runtime.files import read_toml

__all__ = ["ENVIRONMENT_PREFIX", "ServerSettings", "read_environment", "resolve_settings"]

ENVIRONMENT_PREFIX = "MASKSERVE_"

Seconds = Annotated[float, Field(ge=0, le=3600)]
Count = Annotated[int, Field(ge=1)]


def _check_origin(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s*]+", text):
        raise ValueError(f"“{text}” is not an origin, such as https://example.org:8443")
    return text


Origin = Annotated[str, AfterValidator(_check_origin)]

_NAMES_OF_OTHERS = {
    "LABEL_STUDIO_URL": "label_studio_url",
    "LABEL_STUDIO_API_KEY": "label_studio_api_key",
    "LABEL_STUDIO_BASE_DATA_DIR": "label_studio_data_dir",
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": "label_studio_local_files",
}
"""Variables by which Label Studio's backends and Label Studio itself are set up."""

_LISTS = ("models", "api_keys", "cors_origins", "trusted_hosts")


class ServerSettings(BaseModel):
    """How to serve; every field is also ``MASKSERVE_<FIELD>`` and a key of the TOML file."""

    # Without the input in messages, which may be a key.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    models: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default_factory=lambda: tuple(shipped_bundles())
    )
    """Names of shipped models, by default all of them, or paths of bundles; the first is the
    default model."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0 takes any free port; the log says which."""
    workers: Count = 1
    """Processes that serve, each with its own copy of every model."""
    threads: Count = 32
    """Requests that are read and answered at a time, whether or not they need a model."""
    concurrency: Count = 1
    """Photos that are decoded, in the network or pasted at a time. The network takes them one by
    one, with every core; a second photo is prepared meanwhile."""
    queue_size: Annotated[int, Field(ge=0)] = 16
    """Photos that may wait for the network; one more is refused with 503."""
    deadline_s: Seconds = 30
    """A photo that waited longer than this is refused with 504."""
    drain_s: Seconds = 1
    """After SIGTERM, how long ``/readyz`` says 503 before no more connections are taken."""
    max_bytes: Count = 20 * 2**20
    max_pixels: Count = 50_000_000
    api_keys: Annotated[tuple[SecretStr, ...], Field(min_length=1)] | None = None
    """``KEY`` or ``NAME:KEY``; with any, whoever has none is let in nowhere but at the page."""
    api_keys_file: Path | None = None
    """More keys, one a line."""
    cors_origins: tuple[Origin, ...] = ()
    """Pages of these origins may use the API from a browser; by default only its own page may."""
    trusted_hosts: tuple[str, ...] | None = None
    """Requests for other host names are refused; by default any name will do."""
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    """How many proxies in front of the server add to ``X-Forwarded-For``, ``-Proto``, ``-Host``."""
    jobs_dir: Path | None = None
    """Folder of the jobs; without one there are none, since photos would be kept in it."""
    jobs_max_count: Count = 1000
    """Jobs that are kept, ended ones included; one more is refused with 507."""
    jobs_max_bytes: Count = 2 * 2**30
    """Bytes of all jobs together: what was sent, results and pictures."""
    jobs_keep_s: Annotated[float, Field(gt=0)] = 24 * 3600
    """How long results are kept after the end of a job, counted while the server runs."""
    job_max_bytes: Count = 512 * 2**20
    """Bytes of one job, as sent and unpacked."""
    job_max_photos: Count = 10_000
    """Photos and frames of one job."""
    label_studio_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+")] | None = None
    """Where Label Studio is, for its backend: the only place that photos are fetched from."""
    label_studio_api_key: SecretStr | None = None
    label_studio_data_dir: Path | None = None
    """Label Studio's own data folder, where uploads then are read from instead."""
    label_studio_local_files: Path | None = None
    """The folder that ``/data/local-files/?d=…`` is relative to."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _threads_suffice(self) -> ServerSettings:
        if self.threads <= self.concurrency + self.queue_size:
            raise ValueError(
                f"threads ({self.threads}) must be more than concurrency + queue_size "
                f"({self.concurrency} + {self.queue_size}), or nobody is left to say that the "
                "server is full"
            )
        return self


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in ``MASKSERVE_*`` variables, whose lists are split at commas, and in those
    that Label Studio has a name for."""
    values: dict[str, Any] = {
        field: environ[name] for name, field in _NAMES_OF_OTHERS.items() if environ.get(name)
    }
    values |= {
        key.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(ENVIRONMENT_PREFIX)
    }
    for key in _LISTS:
        if key in values:
            values[key] = [part.strip() for part in values[key].split(",") if part.strip()]
    return values


def resolve_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> ServerSettings:
    """Merge all sources of settings; a later one wins.

    Args:
        file: A TOML file with fields of :class:`ServerSettings` at its top level.
        environ: Usually ``os.environ``.
        flags: What the command line was given; flags that were not given are left out.

    Raises:
        SettingsError: An unknown key, with the nearest known one, or a value that is not
            allowed; says which source it came from.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (str(file), read_toml(file) if file else {}),
        ("the environment", read_environment(environ or {})),
        ("the command line", flags or {}),
    ]
    values: dict[str, Any] = {}
    source_of: dict[str, str] = {}
    for source, layer in layers:
        for key in layer:
            if key not in ServerSettings.model_fields:
                nearest = nearest_name(key, ServerSettings.model_fields)
                guess = f"Did you mean “{nearest}”? " if nearest else ""
                known = ", ".join(ServerSettings.model_fields)
                raise SettingsError(
                    f"There is no setting “{key}” (from {source}).", hint=f"{guess}Known: {known}."
                )
            source_of[key] = source
        values.update(layer)
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(f"{first['ctx']['error']}.") from None
        key = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"Setting “{key}” (from {source_of[key]}): {message}.") from None
