"""The application of Ray Serve: HTTP in front, a deployment for each model behind."""

from __future__ import annotations

import os
from typing import Any

from ray import serve
from ray.serve import Application

from maskserve.api.settings import ServerSettings, resolve_settings
from maskserve.cluster.front import Front
from maskserve.cluster.replica import ModelReplica
from maskserve.core.errors import SettingsError
from maskserve.core.manifest import Manifest
from maskserve.runtime.bundle import find_bundle, read_manifest, shipped_bundles

__all__ = ["FRONT", "FRONT_CPUS", "MODEL_CPUS", "app", "make_application"]

FRONT = "http"
"""Name of the deployment that speaks HTTP; the others are called as their models."""

FRONT_CPUS = 0.5
MODEL_CPUS = 1
"""Of one replica, by default."""
_CONCURRENCY = 8
"""Photos that one replica of the front decodes, has predicted or pastes at a time, by default."""


def app(args: dict[str, Any]) -> Application:
    """The application, for ``serve run maskserve.cluster:app`` and for Serve's config files.

    Args:
        args: Settings by name, as in a settings file; they win over ``MASKSERVE_*`` variables.

    Raises:
        SettingsError: One of them is not valid.
        UnknownModelError: There is no such model.
        BundleError: The manifest of one cannot be read.
    """
    return make_application(resolve_settings(environ=os.environ, flags=args))


def make_application(settings: ServerSettings) -> Application:
    """The application; Serve's config may change each deployment's options by its name.

    ``host``, ``port`` and ``workers`` do not count here: they are Serve's.

    Raises:
        SettingsError: A setting is not for Ray, or two models have the same name.
        UnknownModelError: There is no such model.
        BundleError: The manifest of one cannot be read.
    """
    if settings.jobs_dir is not None:
        raise SettingsError(
            "jobs_dir: jobs live in the folder of one server, so there are none on Ray.",
            hint="Use maskserve predict --on ray for many photos.",
        )
    if "concurrency" not in settings.model_fields_set:
        settings = settings.model_copy(update={"concurrency": _CONCURRENCY})
    shipped = shipped_bundles()
    models: dict[str, Application] = {}
    manifests: dict[str, Manifest] = {}
    for model in settings.models:
        path = find_bundle(model)
        manifest = read_manifest(path)
        name = manifest.name
        if name in models or name == FRONT:
            raise SettingsError(f"models: the name “{name}” ({path}) is taken.")
        deploy_model = serve.deployment(
            name=name,
            # A shipped model may lie elsewhere on other nodes.
            user_config={"bundle": model if model in shipped else str(path.resolve())},
            # One photo is in the network, the next one is prepared, the last one pasted.
            max_ongoing_requests=3,
            max_queued_requests=64,
            autoscaling_config={
                "min_replicas": 1,
                "max_replicas": 8,
                "target_ongoing_requests": 2,
            },
            ray_actor_options={"num_cpus": MODEL_CPUS},
            graceful_shutdown_timeout_s=settings.deadline_s,
        )
        models[name] = deploy_model(ModelReplica).bind()
        manifests[name] = manifest
    deploy_front = serve.deployment(
        name=FRONT,
        max_ongoing_requests=settings.threads,
        max_queued_requests=settings.threads,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 4,
            "target_ongoing_requests": settings.concurrency,
        },
        ray_actor_options={"num_cpus": FRONT_CPUS},
        graceful_shutdown_timeout_s=settings.deadline_s,
    )
    return deploy_front(Front).bind(settings, models, manifests)
