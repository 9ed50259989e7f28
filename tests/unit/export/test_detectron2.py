from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models.detection import MaskRCNN

import maskserve.export.detectron2 as module
from detectron2_answers import manifest_of
from maskserve.core import Manifest, Postprocess, Preprocess
from maskserve.core.errors import ExportError
from maskserve.export.detectron2 import export_detectron2
from maskserve.models import ResNetDesign, ResNetMaskRcnn, build_model, load_detectron2

NARROW = ResNetDesign(
    stem_channels=8,
    first_channels=16,
    group_width=4,
    fpn_channels=8,
    rpn_channels=(8,),
    box_features=(16, 16),
    mask_channels=(8,),
    mask_features=8,
)
PREPROCESS = Preprocess(short_side_px=96, max_side_px=160)
POSTPROCESS = Postprocess(min_score=0.4, max_instances=5)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> MaskRCNN:
    """The model of a run whose folder is not looked at."""
    torch.manual_seed(0)
    model = ResNetMaskRcnn(NARROW, 2, PREPROCESS)
    use(monkeypatch, model)
    return model


def use(monkeypatch: pytest.MonkeyPatch, model: MaskRCNN) -> None:
    manifest: Manifest = manifest_of(PREPROCESS, POSTPROCESS, ("Luftballon", "Drachen ø"))
    monkeypatch.setattr(module, "load_run", lambda _: (model, manifest))


def test_what_is_written_reads_as_the_same_model(tmp_path: Path, run: MaskRCNN) -> None:
    out = tmp_path / "for-detectron2"
    export_detectron2(tmp_path, out)

    assert {path.name for path in out.iterdir()} == {
        "config.yaml",
        "metadata.json",
        "model_final.pth",
    }
    loaded = load_detectron2(out / "config.yaml", out / "model_final.pth")
    assert loaded.classes == ("Luftballon", "Drachen ø")
    assert loaded.preprocess == PREPROCESS
    assert loaded.postprocess == POSTPROCESS
    assert loaded.config.design == NARROW
    scores = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(loaded.model.state_dict()[scores], run.state_dict()[scores])


def test_an_earlier_export_is_replaced_and_nothing_else(tmp_path: Path, run: MaskRCNN) -> None:
    out = tmp_path / "out"
    export_detectron2(tmp_path, out)
    export_detectron2(tmp_path, out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").touch()
    with pytest.raises(ExportError, match="is no model for Detectron2"):
        export_detectron2(tmp_path, other)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


def test_the_light_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, build_model("mobilenet_v2", classes=2, preprocess=PREPROCESS))
    with pytest.raises(ExportError, match="which Detectron2 does not have"):
        export_detectron2(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
