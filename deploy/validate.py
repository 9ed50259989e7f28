"""Do manifests fit their CRDs? python deploy/validate.py MANIFEST... --crd CRD...

KubeRay and KServe publish the schemas of their resources as CustomResourceDefinitions, in their
repositories under ray-operator/config/crd/bases and config/crd/full. Fields that a CRD does not
know, which Kubernetes would drop without a word, are faults here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator


def documents(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document:
                yield document


def read_schemas(crds: list[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """JSON schemas by (apiVersion, kind)."""
    return {
        (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]): strict(
            version["schema"]["openAPIV3Schema"]
        )
        for crd in documents(crds)
        if crd["kind"] == "CustomResourceDefinition"
        for version in crd["spec"]["versions"]
    }


def strict(schema: Any) -> Any:
    """The same schema as JSON Schema, without room for unknown fields."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]}
    if isinstance(schema.get("properties"), dict) and not schema.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        schema.setdefault("additionalProperties", False)
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return schema


def faults(manifest: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What is wrong, each with its place."""
    anything = {key: {} for key in ("apiVersion", "kind", "metadata")}
    whole = schema | {"properties": schema.get("properties", {}) | anything}
    return [
        f"{error.json_path}: {error.message[:200]}"
        for error in Draft202012Validator(whole).iter_errors(manifest)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--crd", type=Path, nargs="+", required=True, dest="crds")
    arguments = parser.parse_args()
    schemas = read_schemas(arguments.crds)
    failed = False
    for manifest in documents(arguments.manifests):
        kind = manifest["apiVersion"], manifest["kind"]
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        found = faults(manifest, schemas[kind]) if kind in schemas else [f"no CRD of {kind[0]}"]
        print(f"{name}: {'; '.join(found) or 'fits'}")
        failed |= bool(found)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
