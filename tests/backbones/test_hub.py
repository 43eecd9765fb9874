"""Downloads with huggingface_hub's real client, from a hub on the loopback interface, in health and with faults."""

import hashlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from patience import SECONDS
from safetensors.numpy import save

from dinodemo import backbones, cli
from dinodemo.backbones import (
    BACKBONES,
    DEFAULT,
    OFFLINE_DEFAULT,
    DiskProblem,
    DownloadCancelled,
    DownloadDamaged,
    DownloadPending,
    Downloads,
    HubRefused,
    HubUnreachable,
    fetch,
    find_local,
    offline,
    resolve,
)
from dinodemo.backbones.download import sweep_incomplete
from dinodemo.backbones.hub import cached_folder, free_bytes
from dinodemo.backbones.identity import identify
from dinodemo.engine.pool import EnginePool

from .test_registry import VIT_CONFIG, write_model, write_sharded

CONFIG = json.dumps(VIT_CONFIG).encode()
WEIGHTS = save({"weight": np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8)})
FILES = {
    "config.json": CONFIG,
    "preprocessor_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "README.md": b"card",
}
SMALL, V1, GATED = (BACKBONES[name].hub_id for name in (DEFAULT, "dino-vits16", "dinov3-vits16"))


@pytest.fixture
def small(hub):
    """Offer the default backbone."""
    hub.put(SMALL, FILES)
    return hub


@pytest.fixture
def offline_default(weights_folder):
    """Put something into the place of the offline default."""
    return write_model(weights_folder / OFFLINE_DEFAULT)


@pytest.fixture
def built(weights_folder, monkeypatch):
    """Build the offline default at once; gives the names that were built."""
    names = []
    monkeypatch.setattr(offline, "build", lambda name: names.append(name) or write_model(weights_folder / name))
    return names


def blobs() -> list[Path]:
    return [path for path in Path(constants.HF_HUB_CACHE).glob("*/blobs/*") if path.is_file()]


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


# what the hub refuses, and what is out of reach


@pytest.mark.parametrize(
    ("status", "words"), [(429, "too many requests"), (500, "problem of its own"), (503, "503"), (403, "firewall")]
)
@pytest.mark.parametrize("where", ["info", "storage"])
def test_a_status_becomes_one_sentence_and_the_default_falls_back(where, status, words, small, built, caplog):
    if (where, status) == ("storage", 429):
        pytest.skip("the client itself waits half a minute before it gives up")
    setattr(small.faults, where, status)
    with pytest.raises(HubRefused, match=words) as caught:
        resolve(DEFAULT)
    assert "\n" not in str(caught.value) and str(status) in str(caught.value)
    row, _ = resolve()
    assert (row.name, built) == (OFFLINE_DEFAULT, [OFFLINE_DEFAULT])
    assert str(status) in row.notice and BACKBONES[OFFLINE_DEFAULT].notice in row.notice
    assert "using the offline default" in caplog.text


def test_a_refused_connection_is_out_of_reach_at_once(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(HubUnreachable, match="cannot be reached for facebook/dinov2-base"):
        fetch("dinov2-base")


def test_a_hub_that_never_answers_is_out_of_reach_after_the_setting(hub, monkeypatch):
    monkeypatch.setenv("DINODEMO_HUB_TIMEOUT", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(HubUnreachable):
            fetch("dinov2-base")


def test_a_hub_that_needs_its_time_is_waited_for(small):
    small.faults.delay = 1.0
    assert find_local(DEFAULT) is None and fetch(DEFAULT)


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "1e9"])
def test_a_senseless_limit_is_refused(text, hub, monkeypatch):
    monkeypatch.setenv("DINODEMO_HUB_TIMEOUT", text)
    with pytest.raises(ValueError, match="DINODEMO_HUB_TIMEOUT must be"):
        fetch(DEFAULT)


def test_offline_mode_is_out_of_reach(small, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable):
        fetch(DEFAULT)
    assert small.asked == []


def test_storage_that_is_blocked_for_xet_is_asked_without_it(small, monkeypatch):
    pytest.importorskip("hf_xet", reason="huggingface_hub brings it where there is a build for the platform")
    monkeypatch.setenv("DINODEMO_HUB_TIMEOUT", "1.5")
    small.faults.xet = True
    assert (fetch(DEFAULT) / "model.safetensors").read_bytes() == WEIGHTS


def test_storage_that_says_no_more_is_out_of_reach(small, monkeypatch):
    monkeypatch.setenv("DINODEMO_HUB_TIMEOUT", "1")
    small.faults.hang = 200_000
    with pytest.raises(HubUnreachable, match="no bytes come"):
        fetch(DEFAULT)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_token_that_is_not_valid_does_not_block_public_weights(small, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    seen = []
    assert fetch(DEFAULT, seen.append) and any(progress.note == "token" for progress in seen)


def test_the_terminal_says_that_a_token_is_not_valid(small, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    fetch(DEFAULT)
    told = capsys.readouterr().err
    assert "token is not valid" in told and "2 MB" in told and "hf_stale" not in told


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "set it as the environment variable HF_TOKEN"),
        ("hf_without_access", "no access to .* yet"),
        ("hf_stale", "token is not valid"),
    ],
)
def test_a_gated_backbone_says_what_is_missing(token, words, hub, monkeypatch):
    hub.put(GATED, FILES)
    hub.gated.add(GATED)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubRefused, match=words) as caught:
        fetch("dinov3-vits16")
    assert f"https://huggingface.co/{GATED}" in str(caught.value) and "hf_" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert fetch("dinov3-vits16")


def test_an_unknown_repository_is_a_spelling_mistake(hub):
    with pytest.raises(ValueError, match=r"'someone/nothing'.* check the spelling"):
        fetch("someone/nothing")


def test_pickled_weights_are_not_downloaded(hub):
    hub.put("someone/pickled", {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    with pytest.raises(ValueError, match=r"no safetensors files.*weights import"):
        fetch("someone/pickled")
    assert hub.downloads("pytorch_model.bin") == 0


# disks


def test_a_cache_that_cannot_be_written_is_named_with_its_free_space(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(DiskProblem, match=rf"{re.escape(str(tmp_path))}/file/hub cannot be written .*MB free"):
        fetch(DEFAULT)


def test_too_little_space_is_told_before_the_download(small, monkeypatch):
    monkeypatch.setattr("dinodemo.backbones.download.free_bytes", lambda folder: 3_000_000)
    with pytest.raises(DiskProblem, match=r"needs 88 MB, and .* has only 3 MB free"):
        fetch(DEFAULT)
    assert small.asked == []


def test_a_weights_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DINODEMO_WEIGHTS", str(tmp_path / "file" / "weights"))
    with pytest.raises(DiskProblem, match="weights cannot be written"):
        offline.build(OFFLINE_DEFAULT)


def test_free_space_is_told_for_a_folder_that_is_still_to_be_made(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") > 0


# nobody gets another network than the one that was named


@pytest.mark.parametrize("name", [DEFAULT, SMALL, "dinov2-base", "dinov3-vits16", "someone/some-vit"])
def test_a_named_backbone_is_never_replaced(name, hub, offline_default, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable):
        resolve(name)
    assert resolve()[0].name == OFFLINE_DEFAULT  # what nobody named may be


def test_a_command_that_names_a_backbone_writes_nothing_with_another(hub, offline_default, tmp_path, monkeypatch):

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    photo = Path(__file__).resolve().parents[2] / "assets" / "coffee_cup.jpg"
    status = cli.main(["attention", str(photo), "--out", str(tmp_path / "out"), "--backbone", DEFAULT])
    assert status == 1 and not list((tmp_path / "out").glob("*"))


def test_the_offline_default_is_built_when_it_is_missing(hub, built, weights_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve()[1] == weights_folder / OFFLINE_DEFAULT
    assert built == [OFFLINE_DEFAULT]


# many who ask


def test_progress_says_bytes_rate_and_the_time_that_is_left(small):
    small.faults.rate = 1_000_000
    seen = []
    fetch(DEFAULT, seen.append)
    words = [progress.sentence(DEFAULT) for progress in seen]
    assert any(re.fullmatch(r"dinov2-small: 1 of 2 MB, [01]\.\d MB/s, \d s left", text) for text in words), words
    assert all(a.done <= b.done for a, b in itertools.pairwise(seen))


def test_several_who_ask_share_one_download(small):
    small.faults.rate = 2_000_000
    downloads = Downloads()
    jobs = {id(downloads.start(name)) for name in (DEFAULT, SMALL, DEFAULT)}
    assert len(jobs) == 1
    downloads.start(DEFAULT).wait()
    assert small.downloads("model.safetensors") == 1


def test_a_cancelled_download_ends_and_leaves_nothing(small):
    small.faults.rate = 100_000
    downloads = Downloads()
    job = downloads.start(DEFAULT)
    deadline = time.monotonic() + SECONDS
    while not job.progress.done and time.monotonic() < deadline:
        time.sleep(0.05)
    assert downloads.leave(DEFAULT)
    with pytest.raises(DownloadCancelled):
        job.wait(SECONDS)
    assert find_local(DEFAULT) is None and not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_one_who_leaves_does_not_stop_the_others(small):
    small.faults.rate = 2_000_000
    downloads = Downloads()
    with downloads.waiting(DEFAULT) as job, downloads.waiting(DEFAULT):
        assert not downloads.leave(DEFAULT)
        assert job.wait(SECONDS)


def test_a_server_does_not_wait_for_a_download_in_its_queue(small):
    small.faults.rate = 1_000_000
    pool = EnginePool("cpu", "float32", downloads=Downloads())
    with pytest.raises(DownloadPending, match="ask again"):
        pool.get(DEFAULT)
    pool.downloads.start(DEFAULT).wait(SECONDS)
    with pytest.raises(ValueError, match=r"cannot be (loaded|used)|lack"):  # it is here
        pool.get(DEFAULT)


def test_who_asks_again_after_a_failure_gets_its_reason(small):
    small.faults.info = 503
    pool = EnginePool("cpu", "float32", downloads=Downloads())
    with pytest.raises(DownloadPending):
        pool.get(DEFAULT)
    pool.downloads._jobs[DEFAULT]._ended.wait(SECONDS)
    with pytest.raises(HubRefused, match="503"):
        pool.get(DEFAULT)


def test_a_download_ends_with_the_process_that_asked_for_it(small, tmp_path):
    small.faults.rate = 50_000
    code = f"from dinodemo.backbones import fetch; fetch({DEFAULT!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HF_ENDPOINT": small.url, "HF_HUB_CACHE": constants.HF_HUB_CACHE},
    )
    asked = threading.Event()
    deadline = time.monotonic() + SECONDS
    while small.downloads("model.safetensors") == 0 and time.monotonic() < deadline:
        asked.wait(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + SECONDS
    while list(Path("/proc").glob("[0-9]*")) and _transfers() and time.monotonic() < deadline:
        asked.wait(0.1)
    assert not _transfers()


def _transfers() -> list[str]:
    """List this test's download processes, where /proc tells them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            line = (path.parent / "cmdline").read_bytes()
            if b"dinodemo.backbones.transfer" in line and constants.HF_HUB_CACHE.encode() in path.read_bytes():
                found.append(line.decode())
        except OSError:
            continue
    return found


def test_cached_folder_takes_no_name_that_is_none(hub):
    assert cached_folder("no/such/thing") is None and cached_folder("..") is None


def test_a_depth_model_outside_of_the_table_is_downloaded_once_and_found_again(hub, monkeypatch):
    from dinodemo.tasks.depth import dpt

    name = next(iter(dpt.DPT_MODELS))
    hub.put(name, FILES)
    folder = dpt._fetch(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert dpt._fetch(name) == find_local(name) == folder
    assert hub.downloads("model.safetensors") == 1
