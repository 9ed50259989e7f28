from __future__ import annotations

import pytest

from maskserve.api.dialects.label_config import read_label_config
from maskserve.core.errors import ParameterError

CONFIG = """
<View>
  <Header value="Balloons"/>
  <Image name="photo" value="$picture" zoom="true"/>
  <RectangleLabels name="box" toName="photo"><Label value="balloon"/></RectangleLabels>
  <View style="display: none">
    <BrushLabels name="mask" toName="photo" model_score_threshold="0.25">
      <View><Label value="Round" predicted_values="balloon, ball"/></View>
      <Label value="KITE" background="red"/>
      <Label value="Long name" alias="dragon"/>
    </BrushLabels>
  </View>
  <PolygonLabels name="outline" toName="photo"><Label value="balloon"/></PolygonLabels>
</View>
"""


def test_first_control_for_masks_counts() -> None:
    config = read_label_config(CONFIG)
    assert config.kind == "brushlabels"
    assert (config.from_name, config.to_name) == ("mask", "photo")
    assert config.data_key == "picture"
    assert config.min_score == 0.25


@pytest.mark.parametrize(
    ("class_name", "label"),
    [
        ("balloon", "Round"),
        ("ball", "Round"),
        ("Round", "Round"),
        ("kite", "KITE"),
        ("dragon", "dragon"),
        ("cat", None),
    ],
)
def test_classes_become_labels(class_name: str, label: str | None) -> None:
    assert read_label_config(CONFIG).label_of(class_name) == label


def test_a_control_of_something_else_is_passed_over() -> None:
    xml = CONFIG.replace('name="mask" toName="photo"', 'name="mask" toName="video"')
    config = read_label_config(xml)
    assert (config.kind, config.from_name, config.min_score) == ("polygonlabels", "outline", None)


@pytest.mark.parametrize(
    ("xml", "what"),
    [
        ("", "not XML"),
        ("<View>", "not XML"),
        ("<View>\x00</View>", "not XML"),
        ("<View>" * 100_000, "more than 262144 characters"),
        ("<View/>", "no BrushLabels and no PolygonLabels"),
        (CONFIG.replace("$picture", "picture"), "no value like “\\$image”"),
        (CONFIG.replace("0.25", "many"), "model_score_threshold must be in 0..1, not “many”"),
        (CONFIG.replace("0.25", "nan"), "model_score_threshold must be in 0..1, not “nan”"),
    ],
)
def test_what_cannot_be_used_is_told(xml: str, what: str) -> None:
    with pytest.raises(ParameterError, match=what):
        read_label_config(xml)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE View [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE View [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE View SYSTEM "http://127.0.0.1/view.dtd">',
    ],
)
def test_entities_are_never_expanded(doctype: str) -> None:
    with pytest.raises(ParameterError, match="has a document type"):
        read_label_config(doctype + CONFIG.replace("Balloons", "&a;").strip())
