"""Bodies for schemathesis, which loads this module: sound photos, broken ones, and noise."""

from __future__ import annotations

import base64

import schemathesis
from hypothesis import strategies as st

from image_mutations import mutation, sound_images

_sound = st.sampled_from(list(sound_images().values()))
_broken = st.integers(0, 10_000).map(lambda index: mutation(0, index))
_bodies = st.one_of(_sound, _sound, _broken, st.binary(max_size=100))

for _media_type in ("image/jpeg", "image/png", "image/webp", "application/octet-stream"):
    schemathesis.openapi.media_type(_media_type, _bodies)
schemathesis.openapi.format("byte", _bodies.map(lambda data: base64.b64encode(data).decode()))
