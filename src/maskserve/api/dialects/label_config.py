"""What of a Label Studio project's configuration matters for masks.

    <View>
      <Image name="photo" value="$image"/>
      <BrushLabels name="mask" toName="photo" model_score_threshold="0.5">
        <Label value="Balloon" predicted_values="balloon,kite"/>
      </BrushLabels>
    </View>

https://labelstud.io/tags/brushlabels and https://labelstud.io/tags/polygonlabels;
``predicted_values`` and ``model_score_threshold`` are attributes that the examples of
https://github.com/HumanSignal/label-studio-ml-backend understand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser, fromstring

from maskserve.core.errors import ParameterError

__all__ = ["LabelConfig", "RegionKind", "read_label_config"]

RegionKind = Literal["brushlabels", "polygonlabels"]

_KINDS: dict[str, RegionKind] = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}

_MAX_CHARACTERS = 256 * 1024
"""Of a configuration, which grows many times larger when it is parsed."""

_EXAMPLE = (
    'Such as <View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
    '<Label value="balloon"/></BrushLabels></View>.'
)


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The control that masks are drawn with, and the picture that they are drawn on.

    Attributes:
        kind: Type of its regions.
        from_name: Name of the control.
        to_name: Name of the picture.
        data_key: Where a task has its picture.
        labels: Each label and the names that predictions may have for it.
        min_score: ``model_score_threshold`` of the control; None if it has none.
    """

    kind: RegionKind
    from_name: str
    to_name: str
    data_key: str
    labels: tuple[tuple[str, tuple[str, ...]], ...]
    min_score: float | None

    def label_of(self, class_name: str) -> str | None:
        """The label of a class: by ``predicted_values``, by its name, or in another case."""
        for label, predicted in self.labels:
            if class_name in predicted:
                return label
        names = [label for label, _ in self.labels]
        if class_name in names:
            return class_name
        return next((name for name in names if name.lower() == class_name.lower()), None)


def read_label_config(xml: str) -> LabelConfig:
    """Read a project's configuration; the first control for brushes or polygons counts.

    Raises:
        ParameterError: It is too long or not XML, declares a document type, which could hide
            anything, or has no control for masks on a picture.
    """
    if len(xml) > _MAX_CHARACTERS:
        raise ParameterError(f"The label config has more than {_MAX_CHARACTERS} characters.")
    try:
        root = fromstring(xml, parser=XMLParser(target=_WithoutDoctype()))
    except (ParseError, ValueError) as error:
        raise ParameterError(f"The label config is not XML: {error}.") from None
    pictures = {tag.get("name"): tag for tag in root.iter("Image")}
    for control in root.iter():
        if control.tag in _KINDS and (picture := pictures.get(control.get("toName"))) is not None:
            return _to_config(control, picture)
    raise ParameterError(
        "The label config has no BrushLabels and no PolygonLabels for an Image.", hint=_EXAMPLE
    )


class _WithoutDoctype(TreeBuilder):
    def doctype(self, *_: object) -> NoReturn:
        raise ParameterError(
            "The label config has a document type.", hint="Leave <!DOCTYPE …> away."
        )


def _to_config(control: Element, picture: Element) -> LabelConfig:
    value = picture.get("value", "")
    if not value.startswith("$"):
        raise ParameterError(
            "The Image of the label config has no value like “$image”.",
            hint="Lists of pictures (valueList) are not supported.",
        )
    return LabelConfig(
        kind=_KINDS[control.tag],
        from_name=control.get("name", ""),
        to_name=control.get("toName", ""),
        data_key=value.removeprefix("$"),
        labels=tuple(
            (name, _split(label.get("predicted_values", "")))
            for label in control.iter("Label")
            if (name := label.get("alias") or label.get("value"))
        ),
        min_score=_min_score(control.get("model_score_threshold")),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _min_score(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise ParameterError(f"model_score_threshold must be in 0..1, not “{text}”.")
    return value
