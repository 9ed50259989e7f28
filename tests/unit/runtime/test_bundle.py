from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskserve.core.errors import (
    BundleCorruptError,
    BundleMissingError,
    BundleVersionError,
    UnknownModelError,
)
from maskserve.runtime import bundle as bundle_module
from maskserve.runtime.bundle import find_bundle, read_bundle, read_manifest, shipped_bundles


def zip_folder(folder: Path, prefix: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return path


def change_manifest(bundle: Path, **fields: Any) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_folder(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.manifest.name == "tiny"
    assert bundle.model == (tiny_bundle / "model.onnx").read_bytes()
    assert bundle.path == tiny_bundle


@pytest.mark.parametrize("prefix", ["", "tiny/"])
def test_a_zip_with_or_without_a_folder_in_it(tiny_bundle: Path, prefix: str) -> None:
    zipped = zip_folder(tiny_bundle, prefix)
    assert read_bundle(zipped).model == read_bundle(tiny_bundle).model
    assert read_manifest(zipped) == read_manifest(tiny_bundle)


def test_more_files_than_the_model_are_checked_too(tiny_bundle: Path) -> None:
    (tiny_bundle / "card.md").write_text("changed")
    change_manifest(tiny_bundle, files={**read_manifest(tiny_bundle).files, "card.md": "0" * 64})
    with pytest.raises(BundleCorruptError, match=r"card\.md is not the file"):
        read_bundle(tiny_bundle)


def test_nothing_at_that_place(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match=r"no bundle at .*nothing"):
        read_bundle(tmp_path / "nothing")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match=r"holds no manifest\.json"):
        read_bundle(tmp_path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BundleMissingError, match=r"holds no manifest\.json"):
        read_bundle(tmp_path / "other.zip")


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_text("hello")
    with pytest.raises(BundleCorruptError, match=r"neither a folder nor a \.zip"):
        read_bundle(path)


def test_a_changed_model_is_noticed(tiny_bundle: Path) -> None:
    with (tiny_bundle / "model.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(BundleCorruptError, match="sha256 differs"):
        read_bundle(tiny_bundle)


def test_a_damaged_zip_is_noticed(tiny_bundle: Path) -> None:
    path = zip_folder(tiny_bundle)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("model.onnx").header_offset + 60
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(BundleCorruptError, match=r"model\.onnx"):
        read_bundle(path)


def test_a_missing_model_is_noticed(tiny_bundle: Path) -> None:
    (tiny_bundle / "model.onnx").unlink()
    with pytest.raises(BundleCorruptError, match=r"model\.onnx cannot be read"):
        read_bundle(tiny_bundle)


def test_a_manifest_without_the_model(tiny_bundle: Path) -> None:
    change_manifest(tiny_bundle, files={})
    with pytest.raises(BundleCorruptError, match=r"lists no model\.onnx"):
        read_bundle(tiny_bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", "..\\secret"])
def test_no_file_outside_is_opened(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle.parent / "secret").write_text("secret")
    change_manifest(tiny_bundle, files={name: "0" * 64})
    with pytest.raises(BundleCorruptError, match="names a file outside"):
        read_bundle(tiny_bundle)


def test_a_bundle_of_the_future(tiny_bundle: Path) -> None:
    change_manifest(tiny_bundle, schema_version=99)
    with pytest.raises(BundleVersionError):
        read_bundle(tiny_bundle)


class TestFinding:
    @pytest.fixture(autouse=True)
    def shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A package folder of its own that ships “balloon”."""
        package = tmp_path / "package"
        (package / "bundles" / "balloon").mkdir(parents=True)
        (package / "bundles" / "balloon" / "manifest.json").touch()
        (package / "bundles" / "unfinished").mkdir()
        monkeypatch.setattr(bundle_module, "files", lambda _: package)
        monkeypatch.chdir(tmp_path)
        return package / "bundles" / "balloon"

    def test_only_folders_with_a_manifest_are_shipped(self, shipped: Path) -> None:
        assert shipped_bundles() == {"balloon": shipped}

    def test_a_shipped_name_wins_over_a_folder_of_that_name(
        self, tmp_path: Path, shipped: Path
    ) -> None:
        (tmp_path / "balloon").mkdir()
        assert find_bundle("balloon") == shipped
        assert find_bundle("./balloon").samefile(tmp_path / "balloon")

    def test_a_path(self, make_bundle: Callable[[str], Path]) -> None:
        path = make_bundle("other")
        assert find_bundle(path) == path
        assert find_bundle(str(path)) == path

    def test_a_misspelt_name(self) -> None:
        with pytest.raises(UnknownModelError, match=r"Did you mean “balloon”\? Shipped: balloon\."):
            find_bundle("baloon")


def test_bundles_that_are_shipped_are_called_like_their_folders() -> None:
    for name, path in shipped_bundles().items():
        assert read_bundle(path).manifest.name == name
