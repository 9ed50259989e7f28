"""``maskserve serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["serve"]


def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|BUNDLE",
            help="A shipped model or a bundle of yours; by default all shipped ones. Give it again "
            "to serve several: the first one is the default.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; 0.0.0.0 for all. By default 127.0.0.1."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. By default 8080.")] = None,
    jobs_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Take jobs of many photos, which are kept in this folder; by default, take none.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A TOML file with settings; the flags above win over it."
        ),
    ] = None,
    on: Annotated[
        Literal["here", "ray"],
        typer.Option(help="here: this process. ray: a Ray cluster, see docs/ray-serve.md."),
    ] = "here",
) -> None:
    """Answer photos over HTTP, and show a page to try it at the address itself.

    Every setting can also come from an environment variable, such as MASKSERVE_PORT.

    Examples:

        maskserve serve
        maskserve serve --model balloon --model ./my-bundle.zip --port 9000
        maskserve serve --on ray
        curl -X POST --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\
            http://127.0.0.1:8080/v1/segment
    """
    from maskserve.api.server import serve as run_server
    from maskserve.api.settings import resolve_settings
    from maskserve.cli.extras import ray_extra
    from maskserve.runtime.model_cache import user_cache
    from maskserve.runtime.registry import ModelRegistry

    flags = {"models": model or None, "host": host, "port": port, "jobs_dir": jobs_dir}
    settings = resolve_settings(
        file=config,
        environ=os.environ,
        flags={name: value for name, value in flags.items() if value is not None},
    )
    if on == "ray":
        with ray_extra():
            from maskserve.cluster.serving import serve_on_ray
        serve_on_ray(settings)
        return
    run_server(settings, ModelRegistry(settings.models, cache=user_cache()))
