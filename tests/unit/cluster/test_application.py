"""The application before it runs, and the file in deploy/ that describes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from maskserve.cluster.application import FRONT, app
from maskserve.core.errors import MaskserveError, SettingsError, UnknownModelError

CONFIG = yaml.safe_load(
    (Path(__file__).parents[3] / "deploy" / "ray" / "serve.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("args", "kind", "words"),
    [
        ({"jobs_dir": "jobs"}, SettingsError, "predict --on ray"),
        ({"port_number": 1}, SettingsError, "There is no setting"),
        ({"models": ["balloon", "balloon"]}, SettingsError, "is taken"),
        ({"models": ["baloon"]}, UnknownModelError, "balloon"),
    ],
)
def test_settings_that_are_refused(
    args: dict[str, Any], kind: type[MaskserveError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        app(args)


def test_settings_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSERVE_MODELS", "baloon")
    with pytest.raises(UnknownModelError):
        app({})
    app({"models": ["balloon"]})


def test_the_config_in_deploy_is_valid() -> None:
    config = ServeDeploySchema.model_validate(CONFIG)
    (application,) = config.applications
    app(application.args)
    deployments = {deployment.name for deployment in application.deployments}
    assert deployments == {FRONT, *application.args["models"]}
