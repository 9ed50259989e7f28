from __future__ import annotations

import json
from typing import Any

import pytest

from maskserve.core import Manifest, Preprocess, Provenance
from maskserve.core.errors import BundleCorruptError, BundleVersionError
from maskserve.core.manifest import SCHEMA_VERSION

MANIFEST = Manifest(
    name="balloon",
    version="1",
    licence="Apache-2.0",
    created="2026-01-01T00:00:00Z",
    backbone="mobilenet_v2",
    classes=("balloon",),
    category_ids=(1,),
    metrics={"balloon val": {"segm": {"AP": 70.0}}},
    provenance=Provenance(data="61 photos", initial_weights="imagenet", settings={"seed": 1}),
    files={"model.onnx": "0" * 64},
)


def change(**fields: Any) -> str:
    return json.dumps(json.loads(MANIFEST.to_json()) | fields)


def test_a_manifest_survives_the_way_through_its_file() -> None:
    assert Manifest.from_json(MANIFEST.to_json(), where="manifest.json") == MANIFEST


def test_a_newer_schema_is_not_guessed_at() -> None:
    text = change(schema_version=SCHEMA_VERSION + 1, something_new=True)
    with pytest.raises(BundleVersionError, match="Update maskserve"):
        Manifest.from_json(text, where="manifest.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "^m.json is not JSON"),
        ("[]", "^m.json: the document"),
        (change(name="Über ballons"), "^m.json: name: "),
        (change(licence=None), "^m.json: licence: "),
        (change(surprise=1), "^m.json: surprise: "),
        (change(files={"model.onnx": "123"}), "^m.json: files.model.onnx: "),
        (change(postprocess={"min_score": 2}), "^m.json: postprocess.min_score: "),
        (change(category_ids=[1, 2]), "^m.json: .*1 names but 2 category_ids"),
        (change(preprocess={"short_side_px": 800, "max_side_px": 600}), "^m.json: preprocess"),
    ],
)
def test_a_broken_manifest_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(BundleCorruptError, match=message):
        Manifest.from_json(text, where="m.json")


def test_categories_join_classes_and_ids() -> None:
    assert MANIFEST.categories.id_of(0) == 1


def test_manifests_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        MANIFEST.preprocess.short_side_px = 100
    assert Preprocess().short_side_px == 640
