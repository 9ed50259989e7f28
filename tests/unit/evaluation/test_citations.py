from __future__ import annotations

from pathlib import Path

import pytest

from maskserve.core.errors import SettingsError
from maskserve.evaluation.citations import CitedModel, read_citations

PRIOR_ART = Path(__file__).parents[3] / "docs" / "balloon-prior-art.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cited.toml"
    path.write_text(
        "[[model]]\nname = 'Theirs'\nsource = 'a paper'\ndata = 'their photos'\n"
        "segm = {AP = 50, APm = 5.5}\nbbox = {AP50 = 70}\n"
    )
    return path


def test_figures_come_under_the_keys_of_measures(file: Path) -> None:
    (cited,) = read_citations(file)
    values = {"mask_AP": 50.0, "mask_APm": 5.5, "box_AP50": 70.0}
    assert cited == CitedModel("Theirs", "a paper", "their photos", values)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("AP = 50", "AP = 500", "model.0.segm.AP"),
        ("AP50", "AP51", "model.0.bbox.AP51"),
        ("data =", "photos =", "model.0.data"),
        ("'a paper'", "''", "model.0.source"),
        ("[[model]]", "[[models]]", "model"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(file: Path, old: str, new: str, where: str) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=f"{where}: ") as caught:
        read_citations(file)
    assert "name, source, data" in (caught.value.hint or "")


def test_the_documentations_figures_can_be_read() -> None:
    by_name = {cited.name.partition(",")[0]: cited.values for cited in read_citations(PRIOR_ART)}
    assert by_name["ResNet-101-FPN"]["mask_AP"] == 77.8
    assert by_name["MobileNetV2-FPN"]["mask_APm"] == 5.7
