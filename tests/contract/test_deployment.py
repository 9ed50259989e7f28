"""The files in deploy/ fit the server's settings, each other, and Kubernetes' published schemas."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api_fakes import make_registry
from maskserve.api import ServerSettings, create_app
from maskserve.api.photo import body_limit
from maskserve.api.settings import read_environment, resolve_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted(
    path
    for path in (DEPLOY / "kubernetes").rglob("*.yaml")
    if path.name not in ("kustomization.yaml",)
)
KSERVE = sorted((DEPLOY / "kserve").glob("*.yaml"))
DEFAULTS = ServerSettings()
STOP_S = 10
"""What gunicorn waits for beyond draining and deadline."""
UNITS = {"k": 2**10, "m": 2**20, "s": 1}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def name_of(document: dict[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


RESOURCES = {name_of(document): document for path in KUBERNETES for document in documents(path)}
CONFIG: dict[str, str] = RESOURCES["ConfigMap maskserve"]["data"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod's spec, those that KServe makes included."""
    for name, resource in RESOURCES.items():
        if "template" in resource.get("spec", {}):
            yield name, resource["spec"]["template"]["spec"]
    service, runtime, own = (document["spec"] for path in KSERVE for document in documents(path))
    yield "InferenceService", service["predictor"]
    yield "ServingRuntime", own["predictor"] | runtime  # KServe merges the two


PODS = dict(pods())


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", RESOURCES)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    kubernetes_validate.validate(RESOURCES[name], version, strict=True)


def test_kustomize_takes_every_file() -> None:
    for path in sorted((DEPLOY / "kubernetes").rglob("kustomization.yaml")):
        (kustomization,) = documents(path)
        others = {other.name for other in path.parent.glob("*.yaml")} - {path.name}
        assert set(kustomization["resources"]) == others


def test_selectors_find_their_pods() -> None:
    labels = {
        name: resource["spec"]["template"]["metadata"]["labels"]
        for name, resource in RESOURCES.items()
        if "template" in resource.get("spec", {})
    }

    def found(selector: dict[str, str]) -> list[str]:
        return [name for name, pairs in labels.items() if selector.items() <= pairs.items()]

    server, jobs = "Deployment maskserve", "StatefulSet maskserve-jobs"
    assert found(RESOURCES["Service maskserve"]["spec"]["selector"]) == [server]
    assert found(RESOURCES["Service maskserve-jobs"]["spec"]["selector"]) == [jobs]
    for name, expected in {
        server: [server],
        jobs: [jobs],
        "PodDisruptionBudget maskserve": [server],
    }.items():
        assert found(RESOURCES[name]["spec"]["selector"]["matchLabels"]) == expected
    policy = RESOURCES["NetworkPolicy maskserve"]["spec"]["podSelector"]["matchLabels"]
    assert sorted(found(policy)) == [server, jobs]
    target = RESOURCES["HorizontalPodAutoscaler maskserve"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']} {target['name']}" == server


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_little(name: str) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    # Variables of a Service named maskserve would be taken for settings.
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    user = re.search(r"^USER (\d+):", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert user
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert "/var/cache/maskserve" in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize("name", PODS)
def test_pods_have_the_time_to_finish(name: str) -> None:
    (container,) = PODS[name]["containers"]
    variables = {pair["name"]: pair["value"] for pair in container.get("env", [])}
    if "envFrom" in container:
        variables |= CONFIG
    settings = settings_in(variables)
    needed_s = settings.drain_s + settings.deadline_s + STOP_S
    assert PODS[name]["terminationGracePeriodSeconds"] > needed_s
    ready = container["readinessProbe"]
    noticed_s = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    assert settings.drain_s > noticed_s


@pytest.mark.parametrize("name", PODS)
def test_probes_ask_for_addresses_that_need_no_key(name: str) -> None:
    settings = ServerSettings(api_keys=("a-key-that-nobody-guesses",))  # type: ignore[arg-type]
    client = create_app(settings, make_registry()).test_client()
    (container,) = PODS[name]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert client.get(container[probe]["httpGet"]["path"]).status_code == 200
    assert container["ports"][0]["containerPort"] == DEFAULTS.port


def settings_in(variables: dict[str, Any]) -> ServerSettings:
    """What a server would make of variables; fails where one of them is none of its settings."""
    environ = {key: str(value) for key, value in variables.items()}
    return resolve_settings(
        environ={k: v for k, v in environ.items() if k.startswith("MASKSERVE_")}
    )


def test_systemd_starts_the_server_with_settings_that_it_takes() -> None:
    settings = resolve_settings(file=DEPLOY / "systemd" / "server.toml")
    unit = (DEPLOY / "systemd" / "maskserve.service").read_text(encoding="utf-8")
    values = dict(re.findall(r"^(\w+)=(.*)$", unit, flags=re.MULTILINE))
    assert int(values["TimeoutStopSec"]) > settings.drain_s + settings.deadline_s + STOP_S
    assert settings.jobs_dir == Path("/var/lib") / values["StateDirectory"] / "jobs"
    assert values["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_container_has_settings_that_the_server_takes() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    built_in = dict(re.findall(r"(MASKSERVE_\w+)=(\S+)", dockerfile))
    assert settings_in(built_in).host == "0.0.0.0"
    assert "'127.0.0.1', 8080" in dockerfile
    assert f"EXPOSE {settings_in(built_in).port}" in dockerfile
    (compose,) = documents(DEPLOY / "compose.yaml")
    service = compose["services"]["maskserve"]
    settings = settings_in(built_in | service["environment"])
    assert str(settings.jobs_dir).startswith("/var/lib/maskserve/")
    assert settings.trusted_proxies == 1
    needed_s = settings.drain_s + settings.deadline_s + STOP_S
    assert int(service["stop_grace_period"].removesuffix("s")) > needed_s
    for source, _ in (volume.split(":")[:2] for volume in compose["services"]["nginx"]["volumes"]):
        assert not source.startswith(".") or (DEPLOY / source).is_file()


def amounts(directive: str) -> list[int]:
    """Bytes or seconds that a directive is given in nginx's configuration."""
    text = "".join(path.read_text() for path in sorted((DEPLOY / "nginx").glob("*.conf")))
    found = re.findall(rf"^ *{directive} (\d+)([kms]);", text, flags=re.MULTILINE)
    return [int(number) * UNITS[unit] for number, unit in found]


def test_nginx_takes_what_the_server_takes_and_waits_longer() -> None:
    photo, job = amounts("client_max_body_size")
    assert body_limit(DEFAULTS.max_bytes) <= photo < body_limit(DEFAULTS.max_bytes) * 1.1
    assert DEFAULTS.job_max_bytes < job < DEFAULTS.job_max_bytes * 1.1
    assert amounts("proxy_read_timeout")[0] >= 2 * DEFAULTS.deadline_s
    assert amounts("client_body_timeout")[0] <= DEFAULTS.deadline_s
    gunicorn_server = pytest.importorskip("maskserve.api.gunicorn_server", exc_type=ImportError)
    assert amounts("keepalive_timeout")[0] < gunicorn_server._KEEP_ALIVE_S
    assert gunicorn_server._STOP_S == STOP_S


def test_only_settings_of_ours_are_named() -> None:
    named = {
        name
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for name in re.findall(r"\bMASKSERVE_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))
    }
    fields = read_environment(dict.fromkeys(named, ""))
    assert fields.keys() - ServerSettings.model_fields.keys() <= {"port"}


def test_examples_of_settings_are_toml() -> None:
    page = (DEPLOY.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL):
        ServerSettings.model_validate(tomllib.loads(block))
