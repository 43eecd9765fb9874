"""Which weights made a thing: checksums, and what is said where they differ."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from dinodemo.backbones import identity
from dinodemo.backbones.identity import Identity, check, compare, identify, stamp_of, weights_sha256

FIRST = Identity("dinov2-small", "a" * 64)
OTHER = Identity("dinov2-small", "b" * 64)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sharded(folder: Path) -> Path:
    folder.mkdir()
    for name in ("b.safetensors", "a.safetensors"):
        (folder / name).write_bytes(name.encode())
    shards = {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return folder


def test_the_checksum_is_that_of_the_file(tiny_folder):
    assert weights_sha256(tiny_folder) == sha256(tiny_folder / "model.safetensors")


def test_the_checksum_of_shards_is_that_of_their_list(tmp_path):
    folder = sharded(tmp_path / "model")
    lines = "".join(f"{sha256(folder / name)}  {name}\n" for name in ("a.safetensors", "b.safetensors"))
    assert weights_sha256(folder) == hashlib.sha256(lines.encode()).hexdigest()
    (folder / "b.safetensors").write_bytes(b"changed")
    assert weights_sha256(folder) != hashlib.sha256(lines.encode()).hexdigest()


def test_a_file_that_stays_is_read_once(tiny_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights_sha256(folder)
    monkeypatch.setattr(identity.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    weights_sha256(folder)


def test_the_hub_cache_is_believed_without_reading(tmp_path):
    snapshot = tmp_path / "models--org--model" / "snapshots" / ("c" * 40)
    blob = tmp_path / "models--org--model" / "blobs" / ("d" * 64)
    snapshot.mkdir(parents=True)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to(blob)
    found = identify("org/model", snapshot)
    assert found == Identity("org/model", "d" * 64, revision="c" * 40)


def test_a_run_is_named_and_no_folder_above_it(tiny_folder, tmp_path):
    run = tmp_path / "private" / "cats"
    shutil.copytree(tiny_folder, run / "export")
    (run / "status.json").write_text("{}")
    found = identify(str(run), run / "export")
    assert (found.name, found.run) == ("cats", "cats")
    assert "private" not in found.label + found.to_json()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_stamp_changes_with_each_file_that_results_depend_on(file, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    before, status = stamp_of(folder), (folder / file).stat()
    assert before == stamp_of(folder)
    (folder / "new").write_bytes((folder / file).read_bytes())
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))  # as copies that keep times do
    (folder / "new").replace(folder / file)
    assert stamp_of(folder) != before


def test_a_folder_without_weights_has_no_stamp(tmp_path):
    assert stamp_of(tmp_path) is None


def test_weights_that_were_replaced_after_loading_are_not_named(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    stamp = stamp_of(folder)
    (folder / "model.safetensors").write_bytes(b"other")
    assert identify("model", folder, stamp).sha256 == ""


def test_json_comes_back():
    made = Identity("name", "e" * 64, "revision", "run")
    assert Identity.from_json(made.to_json()) == made
    assert Identity.from_json(json.loads(made.to_json())) == made
    assert Identity.from_json({"name": "name", "sha256": "e" * 64}) == Identity("name", "e" * 64)


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", "{}", 3, {"name": "x"}, {"name": "x", "sha256": "abc"}, {"name": 1, "sha256": "e" * 64}],
)
def test_anything_else_is_no_identity(content):
    assert Identity.from_json(content) is None


def test_the_same_weights_are_the_same_network_by_any_name():
    found = compare(FIRST, Identity("copy", "a" * 64, run="cats"), "this basis")
    assert (found.state, found.message) == ("same", "")
    assert check(FIRST, FIRST, "this basis") == ""


def test_other_weights_of_the_same_name_are_refused_with_both_checksums():
    found = compare(FIRST, OTHER, "this basis", "fit again")
    assert found.state == "other"
    assert all(word in found.message for word in ("this basis", "a" * 12, "b" * 12, "other weights", "fit again"))
    with pytest.raises(ValueError, match="other weights"):
        check(FIRST, OTHER, "this basis")


@pytest.mark.parametrize("stored", [None, Identity("dinov2-small", "")])
def test_what_records_no_weights_gives_a_warning(stored):
    found = compare(stored, OTHER, "this index", "index it again")
    assert found.state == "unknown"
    assert "0.1" in found.message
    assert check(stored, OTHER, "this index", "index it again") == found.message
    assert found.message.endswith("index it again to be sure")


def test_a_network_that_cannot_be_named_gives_a_warning():
    assert compare(FIRST, Identity("dinov2-small", ""), "this basis").state == "unknown"
