from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskserve.core.errors import (
    BundleCorruptError,
    BundleError,
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


class TestHostileBundles:
    """What a bundle of unknown origin might try."""

    def zip_of(self, bundle: Path, *extra: tuple[str, bytes]) -> Path:
        path = bundle.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("manifest.json", "model.onnx"):
                archive.write(bundle / name, name)
            for name, content in extra:
                archive.writestr(name, content)
        return path

    @pytest.mark.parametrize(
        "name", ["../evil", "/etc/evil", "a/../../evil", "C:\\evil", "..\\evil"]
    )
    def test_entries_that_lead_outside_are_never_unpacked(
        self, tiny_bundle: Path, tmp_path: Path, name: str
    ) -> None:
        path = self.zip_of(tiny_bundle, (name, b"evil"))
        before = sorted(tmp_path.rglob("*"))
        assert read_bundle(path).manifest.name == "tiny"
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
    def test_two_files_of_a_name_are_refused(self, tiny_bundle: Path, name: str) -> None:
        path = self.zip_of(tiny_bundle, (name, b"another"))
        with pytest.raises(BundleCorruptError, match="two files of the same name"):
            read_bundle(path)

    def test_a_link_in_a_zip_is_not_followed(self, tiny_bundle: Path) -> None:
        (tiny_bundle / "model.onnx").rename(tiny_bundle.parent / "secret")
        path = tiny_bundle.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tiny_bundle / "manifest.json", "manifest.json")
            link = zipfile.ZipInfo("model.onnx")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, str(tiny_bundle.parent / "secret"))
        with pytest.raises(BundleCorruptError, match="sha256 differs"):
            read_bundle(path)

    def test_a_pipe_is_not_waited_for(self, tiny_bundle: Path) -> None:
        (tiny_bundle / "model.onnx").unlink()
        os.mkfifo(tiny_bundle / "model.onnx")
        with pytest.raises(BundleCorruptError, match=r"model\.onnx cannot be read"):
            read_bundle(tiny_bundle)

    def test_a_zip_bomb_is_refused_before_it_is_unpacked(self, tiny_bundle: Path) -> None:
        path = tiny_bundle.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(tiny_bundle / "manifest.json", "manifest.json")
            with archive.open("model.onnx", "w") as file:
                for _ in range(256):
                    file.write(bytes(2**20))
        assert path.stat().st_size < 2**20
        tracemalloc.start()
        with pytest.raises(BundleCorruptError, match="packed to less than a 100th"):
            read_bundle(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**24

    def test_an_entry_gives_no_more_than_it_declares(self, tiny_bundle: Path) -> None:
        path = tiny_bundle.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(tiny_bundle / "manifest.json", "manifest.json")
            archive.writestr("model.onnx", bytes(2**20))
        data = path.read_bytes()
        assert data.count((2**20).to_bytes(4, "little")) == 2  # beside the entry, and at the end
        path.write_bytes(data.replace((2**20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
        with pytest.raises(BundleCorruptError, match=r"model\.onnx"):
            read_bundle(path)

    def test_sizes_are_limited_over_all_files(
        self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size = (tiny_bundle / "model.onnx").stat().st_size
        (tiny_bundle / "card.md").write_bytes(b"123456789")
        files = read_manifest(tiny_bundle).files
        digest = hashlib.sha256(b"123456789").hexdigest()
        change_manifest(tiny_bundle, files={**files, "card.md": digest})
        monkeypatch.setattr(bundle_module, "_MAX_BYTES", size + 9)
        read_bundle(tiny_bundle)
        monkeypatch.setattr(bundle_module, "_MAX_BYTES", size + 8)
        with pytest.raises(
            BundleCorruptError, match=r"card\.md cannot be read: it has more than 8"
        ):
            read_bundle(tiny_bundle)

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_huge_manifest_is_refused(self, tiny_bundle: Path, zipped: bool) -> None:
        (tiny_bundle / "manifest.json").write_bytes(os.urandom(5 * 2**20))
        path = zip_folder(tiny_bundle) if zipped else tiny_bundle
        with pytest.raises(
            BundleCorruptError, match=r"manifest\.json cannot be read: .* more than"
        ):
            read_bundle(path)

    def test_a_deeply_nested_manifest_is_refused(self, tiny_bundle: Path) -> None:
        (tiny_bundle / "manifest.json").write_text("[" * 1_000_000)
        with pytest.raises(BundleCorruptError, match="is not JSON"):
            read_bundle(tiny_bundle)

    def test_an_encrypted_zip_is_refused(self, tiny_bundle: Path) -> None:
        data = bytearray(self.zip_of(tiny_bundle).read_bytes())
        for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.index(start)
            data[at + offset] |= 1
        path = tiny_bundle.with_suffix(".zip")
        path.write_bytes(data)
        with pytest.raises(BundleCorruptError, match="encrypted"):
            read_bundle(path)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_no_damage_to_a_zip_is_an_error_of_another_kind(
        self, tiny_bundle: Path, data: st.DataObject
    ) -> None:
        original = zip_folder(tiny_bundle).read_bytes()
        changes = data.draw(
            st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), max_size=6)
        )
        changed = bytearray(original)
        for at, value in changes:
            changed[at] = value
        end = data.draw(st.integers(0, len(changed)) | st.just(len(changed)))
        path = tiny_bundle.with_name("changed.zip")
        path.write_bytes(changed[:end])
        with suppress(BundleError):
            assert read_bundle(path).model == (tiny_bundle / "model.onnx").read_bytes()

    @pytest.mark.parametrize("key_first", [True, False])
    def test_tensors_in_other_files_are_refused(self, tiny_bundle: Path, key_first: bool) -> None:
        """OpenVINO would read such a file below the current folder, and no hash stands for it."""
        onnx = pytest.importorskip("onnx", reason="needs the extra “train”")
        model = onnx.load_from_string((tiny_bundle / "model.onnx").read_bytes())
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add(key="location", value="weights.bin")
        content = model.SerializeToString()
        if not key_first:
            assert content.count(entry.SerializeToString()) == 1
            key, value = b"\x0a\x88\x80\x00location", b"\x12\x0bweights.bin"
            assert onnx.StringStringEntryProto.FromString(value + key) == entry
            content = content.replace(b"\x0a\x08location", key)
        (tiny_bundle / "model.onnx").write_bytes(content)
        change_manifest(tiny_bundle, files={"model.onnx": hashlib.sha256(content).hexdigest()})
        with pytest.raises(BundleCorruptError, match="keeps tensors in other files"):
            read_bundle(tiny_bundle)

    def test_names_that_merely_contain_the_word_are_fine(self, tiny_bundle: Path) -> None:
        onnx = pytest.importorskip("onnx", reason="needs the extra “train”")
        model = onnx.load_from_string((tiny_bundle / "model.onnx").read_bytes())
        model.doc_string = "location and the allocation of locations"
        content = model.SerializeToString()
        (tiny_bundle / "model.onnx").write_bytes(content)
        change_manifest(tiny_bundle, files={"model.onnx": hashlib.sha256(content).hexdigest()})
        assert read_bundle(tiny_bundle).model == content
