"""Settings of the server: defaults < TOML file < environment < flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskserve.core.categories import nearest_name
from maskserve.core.errors import SettingsError
from maskserve.runtime.bundle import shipped_bundles
from maskserve.runtime.files import read_toml

__all__ = ["ENVIRONMENT_PREFIX", "ServerSettings", "read_environment", "resolve_settings"]

ENVIRONMENT_PREFIX = "MASKSERVE_"

Seconds = Annotated[float, Field(ge=0, le=3600)]
Count = Annotated[int, Field(ge=1)]


class ServerSettings(BaseModel):
    """How to serve; every field is also ``MASKSERVE_<FIELD>`` and a key of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default_factory=lambda: tuple(shipped_bundles())
    )
    """Names of shipped models, by default all of them, or paths of bundles; the first is the
    default model."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0 takes any free port; the log says which."""
    threads: Count = 32
    """Requests that are read and answered at a time, whether or not they need a model."""
    concurrency: Count = 1
    """Photos that are in a network at a time; one already keeps every core busy."""
    queue_size: Annotated[int, Field(ge=0)] = 16
    """Photos that may wait for the network; one more is refused with 503."""
    deadline_s: Seconds = 30
    """A photo that waited longer than this is refused with 504."""
    drain_s: Seconds = 1
    """After SIGTERM, how long ``/readyz`` says 503 before no more connections are taken."""
    max_bytes: Count = 20 * 2**20
    max_pixels: Count = 50_000_000

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
    """The settings in ``MASKSERVE_*`` variables; ``MASKSERVE_MODELS`` is split at commas."""
    values: dict[str, Any] = {
        key.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(ENVIRONMENT_PREFIX)
    }
    if "models" in values:
        values["models"] = [name.strip() for name in values["models"].split(",") if name.strip()]
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
        raise SettingsError(f"Setting “{key}” (from {source_of[key]}): {first['msg']}.") from None
