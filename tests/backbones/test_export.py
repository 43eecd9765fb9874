"""Backbones for other programs, each opened again by the library that reads it."""

import json

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel

from dinodemo import Engine, cli
from dinodemo.backbones import onnx_graph
from dinodemo.backbones.export import export, target
from dinodemo.backbones.identity import Identity, weights_sha256
from dinodemo.backbones.network import load_module

ort = pytest.importorskip("onnxruntime")
FAMILIES = ("dinov2", "dinov2-registers", "dino-v1", "dinov3")


def run(file, pixels: torch.Tensor):
    return ort.InferenceSession(str(file)).run(["tokens", "attention"], {"pixel_values": pixels.numpy()})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_computes_what_the_engine_does_at_sizes_it_was_not_made_with(
    family, tiny_folders, make_picture, tmp_path
):
    made = export(str(tiny_folders[family]), "onnx", tmp_path / "model.onnx")
    assert max(made.differences.values()) < 1e-4
    engine = Engine(str(tiny_folders[family]), device="cpu", dtype="float32")
    f = engine.features(make_picture(90, 140), 150, attention=True)
    properties = {entry.key: entry.value for entry in onnx.load(str(made.path)).metadata_props}
    height, width = f.input_size
    from dinodemo.io.images import network_input

    rgb = network_input(make_picture(90, 140), 150, int(properties["patch_size"]), None)
    assert rgb.shape[:2] == (height, width)
    pixels = (rgb / 255 - json.loads(properties["image_mean"])) / json.loads(properties["image_std"])
    tokens, attention = run(made.path, torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
    first = 1 + int(properties["registers"])
    np.testing.assert_allclose(tokens[0, 0], f.cls, atol=1e-4)
    np.testing.assert_allclose(tokens[0, first:], f.patches.reshape(-1, f.patches.shape[-1]), atol=1e-4)
    np.testing.assert_allclose(attention[0, :, first:], f.attention.reshape(len(f.attention), -1), atol=1e-5)
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
    assert Identity.from_json(properties["identity"]) == engine.identity


def test_a_graph_that_computes_something_else_is_not_kept(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "compare", lambda *_: {"tokens": 0.0, "attention": float("nan")})
    with pytest.raises(RuntimeError, match=r"differs from PyTorch by .*attention.*not kept"):
        export(str(tiny_folder), "onnx", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_difference_is_found(tiny_folders, tmp_path):
    made = export(str(tiny_folders["dinov2"]), "onnx", tmp_path / "model.onnx")
    other = onnx_graph.TokensAndAttention(load_module("other", tiny_folders["dinov2"])).eval()
    with torch.no_grad():
        other.module.layernorm.bias += 0.01
    found = onnx_graph.compare(other, 14, made.path)
    assert found["tokens"] == pytest.approx(0.01, rel=0.01) and found["attention"] < 1e-5


def test_weights_that_a_graph_cannot_hold_lie_beside_it(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "MOST_INSIDE", 1000)
    made = export(str(tiny_folder), "onnx", tmp_path / "model.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert (tmp_path / "model.onnx.data").stat().st_size > made.path.stat().st_size
    assert run(made.path, torch.zeros(1, 3, 28, 42))[0].shape == (1, 7, 32)


def test_a_folder_opens_with_transformers_and_is_the_same_network(tiny_folder, tmp_path):
    made = export(str(tiny_folder), "hf", tmp_path / "model")
    pixels = torch.randn(1, 3, 28, 42)
    ours, theirs = AutoModel.from_pretrained(made.path), AutoModel.from_pretrained(tiny_folder)
    torch.testing.assert_close(ours(pixels).last_hidden_state, theirs(pixels).last_hidden_state)
    assert Engine(str(made.path)).identity.sha256 == made.identity.sha256 == weights_sha256(tiny_folder)
    assert made.identity.sha256 in (made.path / "README.md").read_text()


def test_one_safetensors_file_holds_the_tensors_and_what_they_are(tiny_folder, tmp_path):
    AutoModel.from_pretrained(tiny_folder).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    made = export(str(tmp_path / "shards"), "safetensors", tmp_path / "one.safetensors")
    with safe_open(made.path, "pt") as one, safe_open(tiny_folder / "model.safetensors", "pt") as whole:
        assert set(one.keys()) == set(whole.keys())
        assert all(torch.equal(one.get_tensor(name), whole.get_tensor(name)) for name in whole.keys())  # noqa: SIM118
        assert json.loads(one.metadata()["config"])["model_type"] == "dinov2"
        assert Identity.from_json(one.metadata()["identity"]) == made.identity


@pytest.mark.parametrize(
    ("kind", "out", "expected"),
    [
        ("onnx", None, "org-model.onnx"),
        ("onnx", "graphs", "graphs/org-model.onnx"),
        ("onnx", "graphs/a.ONNX", "graphs/a.ONNX"),
        ("safetensors", None, "org-model.safetensors"),
        ("hf", None, "org-model"),
        ("hf", "here/model.v2", "here/model.v2"),
    ],
)
def test_where_an_export_goes(kind, out, expected):
    assert str(target("org/model", kind, out)) == expected


def test_what_is_in_the_way_stays(tiny_folder, tmp_path):
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(ValueError, match="--overwrite"):
        export(str(tiny_folder), "safetensors", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_text() == "mine"
    export(str(tiny_folder), "safetensors", tmp_path / "model.safetensors", overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        export(str(tiny_folder), "hf", tmp_path / "model.safetensors", overwrite=True)
    with pytest.raises(ValueError, match=r"folder that .* itself lies in"):
        export(str(tiny_folder), "hf", tiny_folder, overwrite=True)
    with pytest.raises(ValueError, match="format must be one of hf, safetensors, onnx, got 'tflite'"):
        export(str(tiny_folder), "tflite", tmp_path / "x")


def test_the_command_says_what_was_compared(tiny_folder, tmp_path, capsys):
    given = ["export", "--backbone", str(tiny_folder), "--format", "onnx", "--out", str(tmp_path / "a.onnx")]
    assert cli.main(given) == 0
    assert "compared with PyTorch" in capsys.readouterr().out
    assert cli.main(given) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*given, "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["identity"]["sha256"] == weights_sha256(tiny_folder) and told["differences"]["tokens"] < 1e-3
