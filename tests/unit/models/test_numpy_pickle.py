from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maskserve.core.errors import ParameterError
from maskserve.models.checkpoint import read_weights
from maskserve.models.numpy_pickle import load_arrays

CONTENT = {
    "model": OrderedDict(
        weight=np.arange(6, dtype=np.float32).reshape(2, 3),
        turned=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        scalar=np.float32(0.5),
        steps=np.int64(7),
    ),
    "__author__": "somebody",
}


def same(one: Any, other: Any) -> bool:
    return bool(type(one) is type(other) and np.array_equal(one, other))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    found = load_arrays(path)
    assert found["__author__"] == "somebody"
    assert list(found["model"]) == ["weight", "turned", "scalar", "steps"]
    assert all(same(found["model"][k], v) for k, v in CONTENT["model"].items())  # type: ignore[attr-defined]


@given(
    array=arrays.arrays(
        dtype=st.sampled_from(["f2", "f4", "f8", "i8", "u1", "?"]),
        shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    protocol=st.integers(2, 5),
)
def test_any_array_becomes_a_tensor_of_its_values(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any], protocol: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "array.pkl"
    path.write_bytes(pickle.dumps({"weight": array}, protocol=protocol))
    found = read_weights(path)["weight"].numpy()
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_names_of_numpy_1_are_read(tmp_path: Path) -> None:
    written = pickle.dumps(np.ones(2, np.float32), protocol=2)
    path = tmp_path / "old.pkl"
    path.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(load_arrays(path), [1, 1])


def test_text_of_python_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pkl"
    path.write_bytes(b"(dp0\nS'weight'\np1\nS'caf\\xe9'\np2\ns.")
    assert load_arrays(path) == {"weight": "café"}


class _Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def evil(place: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would make a file, and the name of what they call."""
    import os  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    made = f"open({str(place)!r}, 'w')"
    nested = {"model": {"weight": np.ones(1), "bias": [_Evil(eval, made)]}}
    in_array = np.array([_Evil(os.mkdir, str(place))], dtype=object)
    return {
        "eval": (pickle.dumps(_Evil(eval, made)), "builtins.eval"),
        "exec": (pickle.dumps(_Evil(exec, made)), "builtins.exec"),
        "mkdir": (pickle.dumps(_Evil(os.mkdir, str(place))), "posix.mkdir"),
        "popen": (pickle.dumps(_Evil(subprocess.Popen, ["touch", str(place)])), "subprocess.Popen"),
        "nested": (pickle.dumps(nested), "builtins.eval"),
        "in an array": (pickle.dumps({"w": in_array}), "posix.mkdir"),
        "protocol 0": (pickle.dumps(_Evil(eval, made), protocol=0), "__builtin__.eval"),
        "attribute": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        "numpy": (b"cnumpy\nmemmap\n.", "numpy.memmap"),
        "torch": (b"ctorch\nload\n.", "torch.load"),
        "getattr": (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        "codecs": (b"c_codecs\ndecode\n.", "_codecs.decode"),
    }


@pytest.mark.parametrize("name", evil(Path()))
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, name: str) -> None:
    place = tmp_path / "made"
    content, function = evil(place)[name]
    path = tmp_path / "evil.pkl"
    path.write_bytes(content)
    with pytest.raises(ParameterError) as caught:
        read_weights(path)
    assert function in str(caught.value)
    assert not place.exists()


def test_objects_outside_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"Pfile:///etc/passwd\n.")
    with pytest.raises(pickle.UnpicklingError, match="something outside"):
        load_arrays(path)


@given(length=st.integers(0, len(pickle.dumps(CONTENT)) - 1))
def test_a_part_of_a_file_is_damaged(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "part.pkl"
    path.write_bytes(pickle.dumps(CONTENT)[:length])
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(path)


@pytest.mark.parametrize(
    "content",
    [{}, [1], {"weight": "text"}, {"weight": np.array(["text"])}, {"model": {"a": {"b": 1}}}],
)
def test_what_holds_no_numbers_by_name_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ParameterError, match="does not hold tensors by name"):
        read_weights(path)
