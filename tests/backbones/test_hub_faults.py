"""What a hub, a token, a disk or a network can do wrong, and what is said of it."""

import re
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from dinodemo.backbones import (
    BACKBONES,
    DEFAULT,
    OFFLINE_DEFAULT,
    DiskProblem,
    HubRefused,
    HubUnreachable,
    fetch,
    find_local,
    offline,
    resolve,
)
from dinodemo.backbones.hub import free_bytes

from .hub_samples import CONFIG, FILES, GATED, WEIGHTS

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
