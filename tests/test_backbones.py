import json
import logging
import re
import shutil
import socket
import time
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx
from safetensors.numpy import save_file

from dinodemo import Engine, backbones, weights
from dinodemo.backbones import BACKBONES, DEFAULT, OFFLINE_DEFAULT, HubUnreachable, find_local, is_complete, resolve

VIT_CONFIG = {
    "model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 14,
}  # fmt: skip


def write_model(folder, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(VIT_CONFIG | config))
    save_file({"weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
    return folder


def write_sharded(folder, present=("a.safetensors", "b.safetensors")):
    write_model(folder)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"one": "a.safetensors", "two": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for shard in present:
        save_file({"weight": np.zeros(2, np.float32)}, folder / shard)
    return folder


@pytest.fixture
def hf_cache(tmp_path, monkeypatch):
    """Use an empty Hugging Face cache; returns a function that puts a model into it as the hub's client would."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(hub_id, revision="main", write=write_model):
        repo = tmp_path / "hub" / f"models--{hub_id.replace('/', '--')}"
        ref = repo / "refs" / revision
        ref.parent.mkdir(parents=True)
        ref.write_text("c0ffee")
        return write(repo / "snapshots" / "c0ffee")

    return put


@pytest.fixture
def hub(tmp_path, monkeypatch, hf_cache, weights_folder):
    """Replace the hub: set `files` and `error`; `calls` tells what was asked of it."""
    fake = SimpleNamespace(files=["config.json", "model.safetensors"], error=None, calls=[], write=write_model)
    cached = huggingface_hub.snapshot_download

    class Api:
        def model_info(self, hub_id, revision=None, timeout=None):
            fake.calls.append(("info", hub_id, revision))
            assert timeout <= 10
            if fake.error:
                raise fake.error
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in fake.files])

    def snapshot_download(hub_id, revision=None, local_files_only=False, allow_patterns=None, **options):
        if local_files_only:
            return cached(hub_id, revision=revision, local_files_only=True)
        fake.calls.append(("download", hub_id, revision))
        fake.allowed = allow_patterns
        return str(fake.write(tmp_path / "downloaded" / hub_id))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return fake


def hub_error(kind, status=404):
    request = httpx.Request("GET", "https://huggingface.co/api/models/x")
    return kind("refused", response=httpx.Response(status, request=request))


# the table


@pytest.mark.parametrize(
    ("name", "hub_id", "width", "depth", "heads", "patch", "registers"),
    [
        ("dinov2-small", "facebook/dinov2-small", 384, 12, 6, 14, 0),
        ("dinov2-giant", "facebook/dinov2-giant", 1536, 40, 24, 14, 0),
        ("dinov2-base-with-registers", "facebook/dinov2-with-registers-base", 768, 12, 12, 14, 4),
        ("dino-vits8", "facebook/dino-vits8", 384, 12, 6, 8, 0),
        ("dino-vitb16", "facebook/dino-vitb16", 768, 12, 12, 16, 0),
        ("dinov3-vits16plus", "facebook/dinov3-vits16plus-pretrain-lvd1689m", 384, 12, 6, 16, 4),
        ("dinov3-vitl16", "facebook/dinov3-vitl16-pretrain-lvd1689m", 1024, 24, 16, 16, 4),
    ],
)
def test_table_describes_the_published_models(name, hub_id, width, depth, heads, patch, registers):
    row = BACKBONES[name]
    assert (row.hub_id, row.width, row.depth, row.heads) == (hub_id, width, depth, heads)
    assert (row.patch_size, row.registers) == (patch, registers)


def test_table_is_complete():
    families = {"dino-v": 4, "dinov2-": 8 + 2, "dinov3-": 4}
    assert {prefix: sum(name.startswith(prefix) for name in BACKBONES) for prefix in families} == families
    assert len({row.label for row in BACKBONES.values()}) == len(BACKBONES)
    assert all(row.download_mb > 0 and row.licence for row in BACKBONES.values())
    assert [row.name for row in BACKBONES.values() if row.gated] == [n for n in BACKBONES if n.startswith("dinov3")]


@pytest.mark.parametrize("name", [OFFLINE_DEFAULT, backbones.SALIENCY])
def test_stand_ins_say_what_they_are(name):
    assert BACKBONES[name].notice
    assert BACKBONES[name].hub_id is None
    assert "facebook/dinov2-small but not it" in BACKBONES[OFFLINE_DEFAULT].notice


# where weights come from


def test_weights_folder_comes_before_the_cache_and_the_hub(hub, hf_cache, weights_folder):
    folder = write_model(weights_folder / DEFAULT)
    hf_cache("facebook/dinov2-small")
    row, found = resolve(DEFAULT)
    assert (row, found, hub.calls) == (BACKBONES[DEFAULT], folder, [])


def test_the_cache_comes_before_the_hub(hub, hf_cache):
    folder = hf_cache("facebook/dinov2-small")
    row, found = resolve(DEFAULT)
    assert (row.name, found.resolve(), hub.calls) == (DEFAULT, folder.resolve(), [])


def test_the_hub_comes_last(hub, tmp_path):
    row, folder = resolve(DEFAULT)
    assert (row.name, row.notice) == (DEFAULT, "")
    assert folder == tmp_path / "downloaded" / "facebook/dinov2-small"
    assert hub.calls == [("info", "facebook/dinov2-small", None), ("download", "facebook/dinov2-small", None)]


def test_only_configuration_and_safetensors_are_downloaded(hub):
    resolve(DEFAULT)
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in hub.allowed)
    assert {"config.json", "*.safetensors", "*.safetensors.index.json"} <= set(hub.allowed)


def test_a_pinned_revision_is_asked_for_and_found_again(hub, hf_cache):
    resolve("dino-vits16")
    assert {call[2] for call in hub.calls} == {"refs/pr/1"}
    folder = hf_cache("facebook/dino-vits16", revision="refs/pr/1")
    assert find_local("dino-vits16").resolve() == folder.resolve()


def test_a_hub_id_is_downloaded_and_described(hub):
    row, _ = resolve("someone/some-vit")
    assert (row.name, row.width, row.depth, row.heads, row.patch_size) == ("someone/some-vit", 32, 3, 4, 14)


def test_default_backbone_is_the_best_that_is_here(hub, weights_folder):
    assert backbones.default_backbone() == DEFAULT
    write_model(weights_folder / OFFLINE_DEFAULT)
    assert backbones.default_backbone() == OFFLINE_DEFAULT
    write_model(weights_folder / DEFAULT)
    assert backbones.default_backbone() == DEFAULT
    assert hub.calls == []


# when the hub is out of reach


UNREACHABLE = {
    "connect": httpx.ConnectError("no route"),
    "timeout": httpx.ConnectTimeout("slow"),
    "read": httpx.ReadTimeout("slow"),
    "offline": OfflineModeIsEnabled("offline"),
    "not found locally": LocalEntryNotFoundError("nothing"),
    "os": OSError("network is unreachable"),
}


@pytest.mark.parametrize("error", UNREACHABLE.values(), ids=UNREACHABLE)
def test_unreachable_hub_is_reported_as_such(error, hub):
    hub.error = error
    with pytest.raises(HubUnreachable, match=r"huggingface.co cannot be reached for facebook/dinov2-base"):
        resolve("dinov2-base")


def test_the_default_falls_back_to_the_offline_default_and_says_so(hub, weights_folder, caplog):
    hub.error = httpx.ConnectError("no route")
    folder = write_model(weights_folder / OFFLINE_DEFAULT)
    with caplog.at_level(logging.WARNING):
        row, found = resolve(DEFAULT)
    assert (row.name, found) == (OFFLINE_DEFAULT, folder)
    assert "out of reach" in row.notice
    assert BACKBONES[OFFLINE_DEFAULT].notice in row.notice
    assert "offline default" in caplog.text


def test_the_offline_default_is_built_when_it_is_missing(hub, weights_folder, monkeypatch):
    hub.error = httpx.ConnectError("no route")
    built = []
    monkeypatch.setattr(weights, "build", lambda name: built.append(name) or write_model(weights_folder / name))
    assert resolve(DEFAULT)[1] == weights_folder / OFFLINE_DEFAULT
    assert built == [OFFLINE_DEFAULT]


def test_a_refused_connection_fails_at_once(weights_folder, hf_cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(HubUnreachable):
        resolve("dinov2-base")
    assert time.monotonic() - started < 3


def test_a_hub_that_never_answers_fails_after_the_timeout(weights_folder, hf_cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(backbones, "CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(HubUnreachable):
            resolve("dinov2-base")
    assert time.monotonic() - started < 3


def test_connect_timeout_is_a_few_seconds():
    assert 1 <= backbones.CONNECT_TIMEOUT <= 6


# what the hub refuses


@pytest.mark.parametrize("error", [GatedRepoError, RepositoryNotFoundError])
def test_gated_models_tell_where_to_accept_the_licence(error, hub):
    hub.error = hub_error(error, 403)
    with pytest.raises(RuntimeError, match="HF_TOKEN") as caught:
        resolve("dinov3-vits16")
    assert "https://huggingface.co/facebook/dinov3-vits16-pretrain-lvd1689m" in str(caught.value)
    assert not isinstance(caught.value, HubUnreachable)


def test_an_unknown_repository_is_a_spelling_mistake(hub):
    hub.error = hub_error(RepositoryNotFoundError)
    with pytest.raises(ValueError, match=r"'someone/nothing'.* check the spelling"):
        resolve("someone/nothing")


def test_a_server_error_is_not_mistaken_for_no_network(hub):
    hub.error = hub_error(HfHubHTTPError, 503)
    with pytest.raises(RuntimeError, match="try again later") as caught:
        resolve("dinov2-base")
    assert not isinstance(caught.value, HubUnreachable)


def test_models_without_safetensors_are_not_downloaded(hub):
    hub.files = ["config.json", "pytorch_model.bin"]
    with pytest.raises(ValueError, match="no safetensors files"):
        resolve("someone/pickled")
    assert [call[0] for call in hub.calls] == ["info"]


# partial downloads


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_not_complete(missing, tmp_path):
    folder = write_model(tmp_path / "model")
    assert is_complete(folder)
    (folder / missing).unlink()
    assert not is_complete(folder)


@pytest.mark.parametrize("present", ["", "a", "b", "ab"])
def test_every_shard_of_the_index_must_be_there(present, tmp_path):
    shards = [f"{letter}.safetensors" for letter in present]
    assert is_complete(write_sharded(tmp_path / "model", shards)) is (present == "ab")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"weight_map": []}'])
def test_a_broken_index_is_not_complete(content, tmp_path):
    folder = write_sharded(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(content)
    assert not is_complete(folder)


def test_a_partial_cache_is_fetched_again(hub, hf_cache):
    hf_cache("facebook/dinov2-small", write=lambda folder: write_sharded(folder, ("a.safetensors",)))
    assert find_local(DEFAULT) is None
    resolve(DEFAULT)
    assert ("download", "facebook/dinov2-small", None) in hub.calls


def test_a_partial_weights_folder_is_passed_over(hub, weights_folder):
    (write_model(weights_folder / DEFAULT) / "model.safetensors").unlink()
    assert find_local(DEFAULT) is None


def test_a_download_that_stays_partial_is_an_error(hub):
    hub.write = lambda folder: write_sharded(folder, ())
    with pytest.raises(RuntimeError, match="not complete; try again"):
        resolve(DEFAULT)


@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_a_truncated_file_is_never_accepted(keep, tiny_folder, weights_folder):
    folder = shutil.copytree(tiny_folder, weights_folder / "dinov2-small")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: keep or len(content) - 8])
    with pytest.raises(ValueError, match=r"weights of dinov2-small .* (damaged|cannot be loaded)"):
        Engine("dinov2-small", device="cpu", dtype="float32")


# names, folders, runs


@pytest.mark.parametrize(
    "name",
    ["../x", "../../etc/x", "/etc/passwd", "org/../x", "org/x/y", "nonsense", "org/", "/x", "org/..", "a b/c",
     "org/x..y", "org/x?y", "http://host/x", "org/x\n",
     "-x/y", ".hidden/x", "org\\x", "\0", "x" * 400, "org/" + "x" * 400],
    ids=repr,
)  # fmt: skip
def test_names_that_are_no_hub_id_never_reach_the_hub(name, hub):
    with pytest.raises(ValueError, match="no backbone, folder or hub id called"):
        resolve(name)
    assert hub.calls == []


def test_unknown_names_list_the_known_ones(hub):
    with pytest.raises(ValueError, match=r"known names: .*dinov2-base"):
        resolve("dinov2-smal")


def test_a_model_folder_is_described_by_its_config(tmp_path):
    folder = write_model(tmp_path / "model", patch_size=[16, 16], num_register_tokens=2)
    row, found = resolve(str(folder))
    assert found == folder
    assert (row.name, row.patch_size, row.registers, row.hub_id) == (str(folder), 16, 2, None)


def test_a_training_run_is_opened_by_its_export(tmp_path, tiny_folder):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"steps": 100}')
    shutil.copytree(tiny_folder, run / "export")
    assert resolve(str(run))[1] == run / "export"
    engine = Engine(str(run), device="cpu", dtype="float32")
    assert engine.features(np.zeros((28, 28, 3), np.uint8), resolution=28).patches.shape == (2, 2, 32)


def test_a_folder_without_a_model_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"expected config.json and model.safetensors in it or in its export/"):
        resolve(str(tmp_path))


def test_pickled_weights_in_a_folder_are_refused(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no complete model"):
        resolve(str(folder))


@pytest.mark.parametrize("config", [{"model_type": "bert", "hidden_size": 32}, {"model_type": "resnet"}, {}])
def test_models_that_are_no_vit_are_refused(config, tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expected a ViT with patch tokens"):
        resolve(str(folder))


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "3"])
def test_a_broken_config_is_named(content, tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        resolve(str(folder))
