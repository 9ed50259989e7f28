from __future__ import annotations

from pathlib import Path

import pytest

from maskserve.core.errors import ExportError, ParameterError
from maskserve.core.manifest import Preprocess
from maskserve.export import ImportOptions, import_detectron2, import_torchvision, write_bundle
from maskserve.export.imported import _name_of
from maskserve.models import build_model
from maskserve.runtime.bundle import read_manifest


@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("models/coco.zip", "coco"),
        ("R_50_FPN", "r_50_fpn"),
        ("my model (2).zip", "my-model-2-"),
        ("…", "model"),
    ],
)
def test_models_are_named_after_their_bundle(out: str, name: str) -> None:
    assert _name_of(Path(out)) == name


def test_a_name_that_the_api_cannot_have_is_refused_first(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    model = build_model("mobilenet_v2", classes=2, preprocess=Preprocess())
    manifest = read_manifest(tiny_bundle)
    with pytest.raises(ParameterError, match="cannot be called “Not This”"):
        write_bundle(model, manifest, tmp_path / "out", name="Not This", probes=[])
    assert not (tmp_path / "out").exists()


def test_imports_do_not_replace_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(ExportError, match="not a bundle"):
        import_torchvision("maskrcnn_resnet50_fpn", tmp_path)
    with pytest.raises(ExportError, match="not a bundle"):
        import_detectron2(Path("a.yaml"), Path("b.pth"), tmp_path, options=ImportOptions())
