"""Bundles on disk: what is written reads back; what was changed is refused, and said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from server.bundle import check_vacant, file_states, read_bundle, read_manifest, write_bundle
from server.bundle.arrays import decode_arrays, encode_arrays
from server.bundle.manifest import MANIFEST, REQUIRED_FILES, FileEntry, decode_manifest, encode
from server.bundle.schema import decode_schema
from server.errors import BundleError
from tests.support.models import export_small


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small(tmp_path_factory.mktemp("repository") / "fraud" / "1").path


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "fraud" / "1"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's JSON."""
    data = json.loads((bundle / MANIFEST).read_bytes())
    change(data)
    (bundle / MANIFEST).write_text(json.dumps(data))


def test_round_trip(exported: Path) -> None:
    bundle = read_bundle(exported)
    assert bundle.manifest.name == "fraud"
    assert bundle.manifest.version == "1"
    assert set(bundle.manifest.files) == set(REQUIRED_FILES)
    assert [t.name for t in bundle.manifest.thresholds] == ["review", "block"]
    assert bundle.arrays("reference.npz")["n_rows"].tolist() == [800] * 7
    assert encode(bundle.manifest) == (exported / MANIFEST).read_bytes()
    # Nothing else is left beside it.
    assert [path.name for path in exported.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_one_changed_byte_in_any_file(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        changed = data.copy()
        changed[at] ^= 1
        (bundle / name).write_bytes(changed)
        with pytest.raises(BundleError, match=rf"{name}: the content was changed"):
            read_bundle(bundle)
    states = file_states(bundle, read_manifest(bundle)[0])
    assert [key for key, state in states.items() if state != "ok"] == [name]


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_missing_shortened_and_odd_files(bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=rf"{name}: holds {len(data) - 1} bytes"):
        read_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: the file is missing"):
        read_bundle(bundle)
    os.mkfifo(bundle / name)  # must be refused, not waited for
    with pytest.raises(BundleError, match=rf"{name}: not a regular file"):
        read_bundle(bundle)


def test_manifest_missing_or_not_json(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        read_bundle(tmp_path / "nowhere")
    (bundle / MANIFEST).write_bytes(b"{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(bundle)
    (bundle / MANIFEST).write_bytes(b"\xff" * 10)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(bundle)
    (bundle / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"manifest\.json: the file is missing"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format="2.0", files=7), "format 2.0 is newer"),
        (lambda m: m.update(format="0.9"), "format 0.9 is unknown"),
        (lambda m: m.update(format="one"), "major.minor"),
        (lambda m: m.pop("format"), "format"),
        (lambda m: m.update(requires=["intervals"]), "requires intervals"),
        (lambda m: m["files"].pop("golden.npz"), "golden.npz not listed"),
        (lambda m: m["files"].update({"../x": m["files"]["golden.npz"]}), "plain file name"),
        (lambda m: m["files"]["golden.npz"].update(sha256="00"), r"sha256|golden"),
        (lambda m: m["files"]["model.onnx"].update(bytes=1 << 40), "add up to"),
        (lambda m: m.update(name="../../etc"), "name"),
        (lambda m: m["thresholds"].reverse(), "must ascend"),
        (lambda m: m["thresholds"][0].update(raw_score=0.1), "is not a float32"),
        (lambda m: m["thresholds"][0].update(raw_score=1e300), "finite float32"),
        (lambda m: m["thresholds"][0].update(name="approve"), "stands twice"),
        (lambda m: m["outputs"].update(link="probit"), "outputs.link"),
        (lambda m: m["outputs"].update(classes=[0, 1, 2]), "classes holds 3"),
        (lambda m: m.update(created=5), "created"),
    ],
)
def test_manifests_that_cannot_be_used(
    bundle: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=words) as caught:
        read_bundle(bundle)
    assert str(bundle / MANIFEST) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_later_minor_formats_and_unknown_members_are_read(bundle: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest.update(format="1.7", interval={"alpha": 0.1})
        manifest["outputs"]["temperature"] = 2.0
        manifest["quantization"]["new_figure"] = [1]

    edit(bundle, change)
    assert read_bundle(bundle).manifest.format == "1.7"


def test_unknown_files_are_hashed_all_the_same(bundle: Path) -> None:
    (bundle / "reasons.npz").write_bytes(b"later")
    manifest, _ = read_manifest(bundle)
    entry = FileEntry(sha256="0" * 64, bytes=5)
    changed = msgspec.structs.replace(manifest, files={**manifest.files, "reasons.npz": entry})
    (bundle / MANIFEST).write_bytes(encode(changed))
    with pytest.raises(BundleError, match=r"reasons\.npz: the content was changed"):
        read_bundle(bundle)


def test_a_version_is_never_overwritten(exported: Path, tmp_path: Path) -> None:
    manifest, raw = read_manifest(exported)
    content = {name: (exported / name).read_bytes() for name in manifest.files}
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(exported, manifest, content)
    assert (exported / MANIFEST).read_bytes() == raw
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(BundleError, match="exists already"):
        check_vacant(tmp_path / "dangling")
    copy = tmp_path / "new" / "model" / "2"
    write_bundle(copy, manifest, content)
    assert read_bundle(copy).sha256 == read_bundle(exported).sha256


def test_a_failed_write_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    manifest, _ = read_manifest(exported)
    with pytest.raises(BundleError, match="not listed"):
        write_bundle(tmp_path / "m" / "1", manifest, {"model.onnx": b""})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(
            tmp_path / "file" / "1",
            manifest,
            {name: (exported / name).read_bytes() for name in manifest.files},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ({"name": "a", "type": "date"}, "type"),
        ({"name": "", "type": "numeric"}, "name"),
        ({"name": "a", "type": "numeric", "default": 1e39}, "default"),
        ({"name": "a", "type": "numeric", "default": 5, "maximum": 1}, "'a'"),
        ({"name": "a", "type": "categorical"}, "vocabulary"),
    ],
)
def test_schemas_that_cannot_be_used(feature: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        decode_schema(json.dumps({"features": [feature]}).encode(), "schema.json")
    twice = [{"name": "a", "type": "numeric"}] * 2
    with pytest.raises(BundleError, match="twice"):
        decode_schema(json.dumps({"features": twice}).encode(), "schema.json")


def test_arrays_hold_no_pickles_and_no_lies(tmp_path: Path) -> None:
    arrays = {"a": np.arange(5, dtype=np.float32), "b": np.array([True])}
    back = decode_arrays(encode_arrays(arrays), "x.npz")
    assert {k: v.tolist() for k, v in back.items()} == {k: v.tolist() for k, v in arrays.items()}
    np.savez(tmp_path / "o.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(BundleError, match=r"a\.npy"):
        decode_arrays((tmp_path / "o.npz").read_bytes(), "x.npz")
    np.savez(tmp_path / "big.npz", a=np.zeros(3))
    lie = (tmp_path / "big.npz").read_bytes().replace(b"(3,), }", b"(3**9,)")
    with pytest.raises(BundleError, match=r"x\.npz"):
        decode_arrays(lie, "x.npz")
    for data in (b"", b"PK\x03\x04", b"nonsense" * 9):
        with pytest.raises(BundleError, match=r"not a readable \.npz"):
            decode_arrays(data, "x.npz")


def test_an_array_larger_than_its_data_is_refused_before_it_is_made() -> None:
    import io
    import zipfile

    header = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)}
    np.lib.format.write_array_header_1_0(header, shape)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + b"\0" * 16)
    with pytest.raises(BundleError, match="the data differ"):
        decode_arrays(buffer.getvalue(), "x.npz")


def test_decoding_a_manifest_never_raises_anything_else(exported: Path) -> None:
    raw = (exported / MANIFEST).read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        changed = bytearray(raw)
        for at in rng.integers(len(raw), size=rng.integers(1, 8)):
            changed[at] = rng.integers(256)
        try:
            decode_manifest(bytes(changed), "m")
        except BundleError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)
