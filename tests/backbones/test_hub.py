"""Downloads with huggingface_hub's real client, from a hub on the loopback interface."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from dinodemo import backbones, cli
from dinodemo.backbones import (
    BACKBONES,
    DEFAULT,
    OFFLINE_DEFAULT,
    DownloadDamaged,
    fetch,
    find_local,
    offline,
    resolve,
)
from dinodemo.backbones.download import sweep_incomplete
from dinodemo.backbones.identity import identify

from .hub_samples import CONFIG, FILES, SMALL, V1, WEIGHTS, blobs
from .test_registry import write_model, write_sharded

# found, kept, checked


def test_what_was_downloaded_is_found_again_without_a_network(small):
    folder = fetch(DEFAULT)
    asked = len(small.asked)
    assert find_local(DEFAULT) == folder
    assert backbones.default_backbone() == DEFAULT
    row, found = resolve()
    assert (row, found, len(small.asked)) == (BACKBONES[DEFAULT], folder, asked)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_official_weights_are_the_default_of_the_next_start(small, offline_default):
    assert backbones.default_backbone() == OFFLINE_DEFAULT
    fetch(DEFAULT)
    assert backbones.default_backbone() == DEFAULT


def test_full_fetches_the_official_weights_beside_the_offline_default(small, offline_default, capsys):
    assert cli.main(["weights", "fetch"]) == 0
    assert backbones.default_backbone() == OFFLINE_DEFAULT  # it was here, and nothing else was asked for
    assert cli.main(["weights", "fetch", "--full"]) == 0
    assert backbones.default_backbone() == DEFAULT
    told = capsys.readouterr().out
    assert hashlib.sha256(WEIGHTS).hexdigest()[:12] in told
    assert f"made with {OFFLINE_DEFAULT} do not fit it" in told
    assert identify(DEFAULT, find_local(DEFAULT)).sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_full_does_not_pass_the_offline_default_off_as_official(small, offline_default, capsys):
    small.faults.info = 503
    assert cli.main(["weights", "fetch", "--full"]) == 1
    assert f"{OFFLINE_DEFAULT} stays the default" in capsys.readouterr().err
    assert cli.main(["weights", "fetch", "--full", "dinov2-base"]) == 1
    assert "leave out" in capsys.readouterr().err


def test_the_command_line_finds_them_in_another_process_and_offline(small, tmp_path):
    fetch(DEFAULT)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "HF_HOME": str(tmp_path / "home"),
        "DINODEMO_WEIGHTS": str(tmp_path / "weights"),
    }
    command = [sys.executable, "-m", "dinodemo.cli", "weights"]
    listed = subprocess.run([*command, "list"], env=environment, capture_output=True, text=True, check=True).stdout
    line = next(line for line in listed.splitlines() if line.startswith(f"{DEFAULT} "))
    assert line.endswith("(the default)") and constants.HF_HUB_CACHE in line
    fetched = subprocess.run([*command, "fetch"], env=environment, capture_output=True, text=True, check=True)
    assert fetched.stdout.startswith(f"{DEFAULT}: ")


def test_only_configuration_and_safetensors_are_downloaded(small):
    assert {path.name for path in fetch(DEFAULT).iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }


def test_a_cache_that_transformers_filled_is_used(hub, tmp_path):
    """Its from_pretrained downloads configuration and weights alone, and writes no list of the repository's files."""
    repo = Path(constants.HF_HUB_CACHE) / f"models--{SMALL.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c0ffee")
    assert find_local(DEFAULT) is None
    folder = write_model(repo / "snapshots" / "c0ffee")
    assert find_local(DEFAULT) == folder
    assert resolve(DEFAULT)[1] == folder and hub.asked == []


def test_the_weights_folder_comes_before_the_cache(small, weights_folder):
    fetch(DEFAULT)
    folder = write_model(weights_folder / DEFAULT)
    assert resolve(DEFAULT) == (BACKBONES[DEFAULT], folder)


def test_a_pinned_revision_is_downloaded_and_found_again(hub):
    hub.put(V1, {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    hub.put(V1, FILES, revision="refs/pr/1")
    folder = fetch(V1)  # the hub id is the table's row, which knows the revision
    assert find_local("dino-vits16") == find_local(V1) == folder
    assert resolve(V1)[0].name == "dino-vits16"


def test_a_partial_copy_is_completed(small):
    folder = fetch(DEFAULT)
    (folder / "model.safetensors").resolve().unlink()
    assert find_local(DEFAULT) is None
    assert fetch(DEFAULT) == folder and (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_verify_finds_damage_of_the_right_length_and_fetch_mends_it(small):
    blob = (fetch(DEFAULT) / "model.safetensors").resolve()
    assert offline.verify()[f"{SMALL}/model.safetensors"] == "ok"
    blob.chmod(0o644)
    blob.write_bytes(b"\0" + WEIGHTS[1:])
    assert "damaged; run `dinodemo weights fetch dinov2-small`" in offline.verify()[f"{SMALL}/model.safetensors"]
    fetch(DEFAULT)
    assert offline.verify()[f"{SMALL}/model.safetensors"] == "ok"


@pytest.mark.parametrize("fault", ["corrupt", "wrong_size"])
def test_a_damaged_download_is_not_kept(fault, small):
    setattr(small.faults, fault, True)
    with pytest.raises(DownloadDamaged, match="is damaged"):
        fetch(DEFAULT)
    assert find_local(DEFAULT) is None and all(len(blob.read_bytes()) < 1000 for blob in blobs())


def test_a_repository_that_lacks_a_shard_is_named(hub, tmp_path):
    folder = write_sharded(tmp_path / "model", ("a.safetensors",))
    hub.put(SMALL, {path.name: path.read_bytes() for path in folder.iterdir()})
    with pytest.raises(DownloadDamaged, match="the repository itself is not complete"):
        fetch(DEFAULT)


def test_a_connection_that_breaks_off_is_resumed(small):
    small.faults.cut = 1_200_000
    assert (fetch(DEFAULT) / "model.safetensors").read_bytes() == WEIGHTS


def test_pieces_that_a_killed_download_left_are_swept(small):
    folder = fetch(DEFAULT)
    left = blobs()[0].parent / "0123abc.89abcdef.incomplete"
    left.write_bytes(b"piece")
    sweep_incomplete(SMALL)
    assert not left.exists() and find_local(DEFAULT) == folder
