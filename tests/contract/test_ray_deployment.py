"""The files in deploy/ray fit Ray's schema, the application, each other, and Kubernetes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

pytest.importorskip("ray", reason="the extra “ray” is not installed")
from ray.serve.schema import ServeDeploySchema

from maskserve.api.settings import resolve_settings
from maskserve.cluster.application import FRONT, make_application
from maskserve.runtime.bundle import shipped_bundles

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
CONFIG: dict[str, Any] = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())
SERVICE: dict[str, Any] = yaml.safe_load((DEPLOY / "ray" / "rayservice.yaml").read_text())
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
PODS = {name: group["template"] for name, group in GROUPS.items()} | {
    "head": CLUSTER["headGroupSpec"]["template"]
}


def test_ray_takes_the_config() -> None:
    (application,) = ServeDeploySchema(**CONFIG).applications
    assert application.import_path == "maskserve.cluster:app"
    settings = resolve_settings(flags=application.args)
    make_application(settings)
    assert {deployment.name for deployment in application.deployments} == {FRONT, *settings.models}
    assert set(settings.models) == set(shipped_bundles())


def test_the_service_has_the_same_config() -> None:
    assert yaml.safe_load(SERVICE["spec"]["serveConfigV2"]) == CONFIG


def test_all_name_one_version_of_ray() -> None:
    (version,) = re.findall(
        r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE
    )
    assert CLUSTER["rayVersion"] == version
    assert f"rayproject/ray:{version}-py311" in (DEPLOY / "ray" / "Dockerfile").read_text()


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_knows_every_field_of_the_pods(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **PODS[name]}
    pod["metadata"] = {**pod["metadata"], "name": name}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_little_and_tell_nobody(name: str) -> None:
    spec = PODS[name]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_smallest_cluster_has_room_for_the_smallest_application() -> None:
    needed = sum(
        deployment["autoscaling_config"]["min_replicas"]
        * deployment["ray_actor_options"]["num_cpus"]
        for deployment in CONFIG["applications"][0]["deployments"]
    )
    group = GROUPS["cpu"]
    cpus = int(PODS["cpu"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert needed <= group["minReplicas"] * cpus


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  group: example.org
  names: {kind: Kettle}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [litres]
              properties:
                litres: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}
                free: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"litres": 2, "free": {"any": 1}}, "fits"),
        ({"litres": "2"}, "fits"),
        ({"litres": 2.5}, "$.spec.litres"),
        ({"free": {}}, "'litres' is a required property"),
        ({"litres": 2, "liters": 2}, "'liters' was unexpected"),
    ],
)
def test_the_validator_finds_what_a_crd_does_not_know(
    tmp_path: Path, spec: dict[str, Any], words: str
) -> None:
    (tmp_path / "crd.yaml").write_text(CRD)
    kettle = {
        "apiVersion": "example.org/v1",
        "kind": "Kettle",
        "metadata": {"name": "k"},
        "spec": spec,
    }
    (tmp_path / "kettle.yaml").write_text(yaml.safe_dump(kettle))
    done = subprocess.run(
        [
            sys.executable,
            DEPLOY / "validate.py",
            tmp_path / "kettle.yaml",
            "--crd",
            tmp_path / "crd.yaml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert words in done.stdout
    assert (done.returncode == 0) == (words == "fits")
