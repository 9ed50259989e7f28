"""Which keys there are."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from maskserve.api.keys import ApiKeys
from maskserve.api.settings import ServerSettings, resolve_settings
from maskserve.core.errors import SettingsError

ALICE = "alice-has-a-long-key"
BOB = "0123456789abcdef"
NAME_OF_BOB = "key-9f9f5111"
KEYS = st.text(string.ascii_letters + string.digits + "._~+/=-", min_size=16, max_size=256)


def of_file(path: Path, text: str) -> ApiKeys:
    path.write_text(text, encoding="utf-8")
    return ApiKeys(ServerSettings(api_keys_file=path))


def of_settings(*keys: str) -> ApiKeys:
    return ApiKeys(ServerSettings(api_keys=tuple(SecretStr(key) for key in keys)))


def test_without_any_nobody_is_asked() -> None:
    assert not ApiKeys(ServerSettings()).required


def test_a_file_with_names_comments_and_empty_lines(tmp_path: Path) -> None:
    keys = of_file(tmp_path / "keys", f"# of ours\n\nalice:{ALICE}\n  {BOB}  \n")
    assert keys.required
    assert keys.name_of(ALICE) == "alice"
    assert keys.name_of(BOB) == NAME_OF_BOB
    assert keys.name_of("alice:" + ALICE) is None
    assert keys.name_of("# of ours") is None
    assert keys.name_of("") is None


def test_environment_and_file_count_both(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"alice:{ALICE}")
    settings = resolve_settings(
        environ={
            "MASKSERVE_API_KEYS": f"bob:{BOB}, carol:{BOB}x",
            "MASKSERVE_API_KEYS_FILE": str(tmp_path / "keys"),
        }
    )
    keys = ApiKeys(settings)
    assert [keys.name_of(key) for key in (BOB, BOB + "x", ALICE)] == ["bob", "carol", "alice"]


@given(st.lists(KEYS, min_size=1, max_size=5, unique=True), KEYS)
def test_exactly_the_given_keys_are_known(given_keys: list[str], other: str) -> None:
    keys = of_settings(*(f"{number}:{key}" for number, key in enumerate(given_keys)))
    for number, key in enumerate(given_keys):
        assert keys.name_of(key) == str(number)
        assert (keys.name_of(key[:-1]) is None) == (key[:-1] not in given_keys)
    assert (keys.name_of(other) is None) == (other not in given_keys)


@pytest.mark.parametrize("strange", ["größe-und-mehr-davon", "\udcff" * 3, "x" * 10_000, "\0"])
def test_whatever_is_presented_is_merely_unknown(strange: str) -> None:
    assert of_settings(BOB).name_of(strange) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds none"),
        ("# nothing\n", "holds none"),
        (f"{BOB}\ntooshort", "Line 2 of"),
        (f"a b:{BOB}", "has a name that cannot be one"),
        (f":{BOB}", "has a name that cannot be one"),
        (f"alice:{BOB}\nbob:{BOB}", "Line 2 of .* was given before"),
    ],
)
def test_a_mistake_is_named_without_the_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        of_file(tmp_path / "keys", text)
    assert BOB not in str(caught.value)
    assert "tooshort" not in str(caught.value)


def test_a_key_without_a_name_keeps_the_one_it_gets() -> None:
    """Whatever stands before it: jobs belong to names."""
    assert of_settings(BOB).name_of(BOB) == of_settings(ALICE, BOB).name_of(BOB) == NAME_OF_BOB


def test_keys_may_share_a_name() -> None:
    keys = of_settings(f"bob:{ALICE}", f"bob:{BOB}")
    assert keys.name_of(ALICE) == keys.name_of(BOB) == "bob"


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"keys cannot be read: No such file"):
        ApiKeys(ServerSettings(api_keys_file=tmp_path / "keys"))
    (tmp_path / "keys").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"keys cannot be read: it is not UTF-8"):
        ApiKeys(ServerSettings(api_keys_file=tmp_path / "keys"))


def test_a_variable_without_keys_does_not_open_the_server() -> None:
    with pytest.raises(SettingsError, match="api_keys"):
        resolve_settings(environ={"MASKSERVE_API_KEYS": ""})


def test_reload_takes_the_new_file_and_keeps_the_old_keys_if_it_is_broken(tmp_path: Path) -> None:
    keys = of_file(tmp_path / "keys", ALICE)
    (tmp_path / "keys").write_text(BOB)
    keys.reload()
    assert (keys.name_of(ALICE), keys.name_of(BOB)) == (None, NAME_OF_BOB)
    (tmp_path / "keys").write_text("short")
    with pytest.raises(SettingsError):
        keys.reload()
    assert keys.name_of(BOB) == NAME_OF_BOB


def test_keys_show_in_no_repr_and_in_no_message() -> None:
    settings = ServerSettings(api_keys=(SecretStr(BOB),))
    assert BOB not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ValidationError) as caught:
        ServerSettings.model_validate({"api_keys": {"secret": BOB}, "port": BOB})
    assert BOB not in str(caught.value)
    assert BOB not in repr(vars(ApiKeys(settings))["_name_of"])
