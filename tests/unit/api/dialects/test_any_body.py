"""Whatever is sent to a dialect, the answer is a refusal in words and never our fault."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BOUNDS = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
CONFIG = """<View><Image name="p" value="$image"/><BrushLabels name="m" toName="p">
<Label value="balloon"/></BrushLabels></View>"""
FRAGMENTS = """<View>|</View>|<Image| name="p"| value="$image"|/>|>|<BrushLabels| toName="p"|<Label|
 value="balloon"|</BrushLabels>|<!DOCTYPE a>|<!--|-->|&|é"""
XML = st.lists(st.sampled_from(FRAGMENTS.split("|")), max_size=12).map("".join)


@BOUNDS
@given(ANYTHING, XML)
def test_label_studio(client: FlaskClient, junk: Any, config: str) -> None:
    for path, body in (
        ("/setup", junk),
        ("/setup", {"schema": junk}),
        ("/setup", {"schema": config}),
        ("/predict", junk),
        ("/predict", {"tasks": junk, "label_config": CONFIG}),
        ("/predict", {"tasks": [{"data": {"image": junk}}], "label_config": CONFIG}),
        ("/webhook", junk),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code in (200, 415, 422), (body, answer.text)


@BOUNDS
@given(st.text(max_size=40))
def test_paths_of_photos(client: FlaskClient, path: str) -> None:
    for reference in (path, f"/data/upload/{path}", f"/data/local-files/?d={path}.jpg"):
        task = {"data": {"image": reference}}
        answer = client.post("/predict", json={"tasks": [task], "label_config": CONFIG})
        assert answer.status_code in (415, 422), (reference, answer.text)


@BOUNDS
@given(ANYTHING)
def test_hugging_face(client: FlaskClient, junk: Any) -> None:
    for body in (junk, {"inputs": junk}, {"inputs": "AAAA", "parameters": junk}):
        answer = client.post("/hf/image-segmentation", json=body)
        assert answer.status_code in (415, 422), (body, answer.text)
