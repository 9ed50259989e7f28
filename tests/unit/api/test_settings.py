"""Where the server's settings come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from maskserve.api.settings import ServerSettings, read_environment, resolve_settings
from maskserve.core.errors import SettingsError


def test_defaults() -> None:
    settings = resolve_settings()
    assert settings == ServerSettings()
    assert settings.max_bytes == 20 * 2**20
    assert settings.max_pixels == 50_000_000


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\nthreads = 20\nhost = "a"\nmodels = ["x", "y"]\n')
    settings = resolve_settings(
        file=file,
        environ={"MASKSERVE_THREADS": "30", "MASKSERVE_HOST": "b", "HOME": "/"},
        flags={"host": "c"},
    )
    assert (settings.port, settings.threads, settings.host) == (1, 30, "c")
    assert settings.models == ("x", "y")


def test_lists_in_the_environment_are_split_at_commas() -> None:
    settings = resolve_settings(
        environ={
            "MASKSERVE_CORS_ORIGINS": "https://a.example, http://localhost:3000",
            "MASKSERVE_TRUSTED_HOSTS": "a.example",
            "MASKSERVE_TRUSTED_PROXIES": "1",
        }
    )
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.trusted_hosts == ("a.example",)
    assert settings.trusted_proxies == 1


def test_environment_is_read_by_prefix() -> None:
    environ = {"MASKSERVE_MODELS": "balloon, /srv/cat.zip,", "PATH": "x", "MASKSERVE_PORT": "9"}
    assert read_environment(environ) == {"models": ["balloon", "/srv/cat.zip"], "port": "9"}


def test_label_studios_own_variables_count_too() -> None:
    environ = {
        "LABEL_STUDIO_URL": "http://127.0.0.1:8081",
        "LABEL_STUDIO_API_KEY": "secret",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": "/srv/photos",
        "LABEL_STUDIO_BASE_DATA_DIR": "",
        "MASKSERVE_LABEL_STUDIO_URL": "https://label.example.org",
    }
    settings = resolve_settings(environ=environ)
    assert settings.label_studio_url == "https://label.example.org"
    assert settings.label_studio_local_files == Path("/srv/photos")
    assert settings.label_studio_data_dir is None
    assert "secret" not in repr(settings)
    with pytest.raises(SettingsError, match="“label_studio_url”"):
        resolve_settings(environ={"LABEL_STUDIO_URL": "label.example.org"})


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        ({"MASKSERVE_PROT": "1"}, {}, ["“prot”", "the environment", "Did you mean “port”?"]),
        ({"MASKSERVE_PORT": "high"}, {}, ["“port”", "the environment", "integer"]),
        ({"MASKSERVE_PORT": "1"}, {"port": 99_999}, ["“port”", "the command line", "65535"]),
        ({"MASKSERVE_MODELS": ""}, {}, ["“models”", "at least 1"]),
        ({"MASKSERVE_THREADS": "5"}, {"queue_size": 4}, ["threads (5)", "1 + 4"]),
        ({}, {"colour": 1}, ["“colour”", "Known: models, host"]),
    ],
)
def test_mistakes_are_named_with_their_source(
    environ: dict[str, str], flags: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ=environ, flags=flags)
    for word in words:
        assert word in str(caught.value)


def test_file_that_is_missing_or_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    with pytest.raises(SettingsError, match=r"server\.toml cannot be read"):
        resolve_settings(file=file)
    file.write_text("port: 80")
    with pytest.raises(SettingsError, match=r"server\.toml is not a TOML file"):
        resolve_settings(file=file)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        ServerSettings().port = 1
