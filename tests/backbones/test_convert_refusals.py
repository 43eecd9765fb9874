"""Weights that are not whole or not a ViT, and files that are no checkpoint, are named; code in them is not run."""

import errno
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import save_file

from dinodemo.backbones.convert import import_checkpoint

from .foreign import LEARNT, save_originals, to_meta, to_timm, under, weights_of


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """Give a model folder per family; not to be changed."""
    return save_originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def checkpoint(originals, tmp_path) -> Path:
    """Give a file that can be imported."""
    torch.save(to_meta(weights_of(originals["dinov2"]), "dinov2"), tmp_path / "good.pth")
    return tmp_path / "good.pth"


def changed(checkpoint: Path, change) -> Path:
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("blocks.1.norm1.weight"), r"1 missing key \(blocks.1.norm1.weight\)"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.1.")],
            None,  # a shorter network is a network
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.1.") and "ls2" not in k],
            r"13 missing keys \(blocks.1.norm1.weight, .*, \.\.\.\)",
        ),
        (lambda s: s.pop("norm.bias"), r"missing key \(norm.bias\)"),
        (lambda s: s.update({"blocks.0.attn.q_norm.weight": torch.ones(64)}), r"1 unknown key \(blocks.0.attn.q_norm"),
        (lambda s: s.update({"blocks.0.head.weight": torch.ones(64)}), r"unknown key \(blocks.0.head.weight\)"),
        (
            lambda s: s.update({f"x{n}": torch.ones(1) for n in range(7)}),
            r"7 unknown keys \(x0, x1, x2, x3, x4, \.\.\.\)",
        ),
        (lambda s: s.update({"norm.bias": torch.ones(64)}), r"norm.bias is \(64,\), expected \(128,\)"),
        (
            lambda s: s.update({"norm.bias": torch.ones(128, dtype=torch.int8)}),
            r"norm.bias is \(128,\) of strided int8",
        ),
        (
            lambda s: s.update({"norm.bias": torch.ones(128).to_sparse()}),
            r"norm.bias is \(128,\) of sparse_coo float32",
        ),
        (lambda s: s.update({"patch_embed.proj.weight": torch.ones(0, 3, 14, 14)}), "expected .width, 3, p, p."),
        (lambda s: s["norm.bias"].fill_(float("nan")), r"not finite .* in 1 spoilt key \(norm.bias\)"),
        (lambda s: s["blocks.1.mlp.fc1.bias"].fill_(float("inf")), r"not finite .*blocks.1.mlp.fc1.bias"),
        (lambda s: s.update({"pos_embed": torch.ones(1, 15, 128)}), "15 position embeddings, which are no square"),
        (lambda s: s.update({"patch_embed.proj.weight": torch.ones(128, 4, 14, 14)}), "expected .width, 3, p, p."),
        (lambda s: s.update({"layer.0.norm1.weight": torch.ones(128)}), "are the same parameter"),
        (lambda s: s.update({"cls_norm.weight": torch.ones(128)}), "norms its class token apart"),
    ],
)
def test_weights_that_are_not_whole_are_named(change, told, checkpoint, tmp_path):
    changed(checkpoint, change)
    if told is None:
        assert import_checkpoint(checkpoint, root=tmp_path / "root").name == "good"
        return
    with pytest.raises(ValueError, match=told):
        import_checkpoint(checkpoint, root=tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_missing_keys_are_named_as_the_file_would_name_them(originals, tmp_path):
    state = under("teacher.", weights_of(originals["dinov2"]))
    state.pop("teacher.encoder.layer.1.attention.output.dense.bias")
    torch.save(state, tmp_path / "cut.bin")
    with pytest.raises(ValueError, match=r"1 missing key \(encoder.layer.1.attention.output.dense.bias\)"):
        import_checkpoint(tmp_path / "cut.bin", root=tmp_path / "root")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a.cls_token": torch.ones(1), "b.cls_token": torch.ones(1)}, r"several ViTs \(a., b.\)"),
        (
            {"backbone.cls_token": torch.ones(1), "extra.x": torch.ones(1)},
            r"more than a ViT: 1 unknown key \(extra.x\)",
        ),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}, "state of an optimiser"),
        ({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}, "state of an optimiser"),
        ({"epoch": 3}, "holds no tensors, only: epoch"),
        ({}, "holds no tensors, only: nothing"),
        ([torch.ones(2)], "holds a list, not a dictionary"),
        (torch.ones(2), "holds a Tensor, not a dictionary"),
        ({"w": torch.ones(2)}, r"no ViT with a class token, but 1 other key \(w\)"),
        ({"cls_token": torch.ones(1, 1, 128)}, "has 0 transformer blocks; expected 1 to 256"),
        ({"cls_token": torch.ones(1), "blocks.999.norm1.bias": torch.ones(1)}, "has 1000 transformer blocks"),
        ({"_fsdp_wrapped_module._flat_param": torch.ones(2)}, "shard of an FSDP checkpoint"),
    ],
)
def test_other_contents_are_told(content, told, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=told):
        import_checkpoint(tmp_path / "x.pth", root=tmp_path / "root")


STRANGERS = {
    "ConvNeXt": "stages.0.blocks.0.conv_dw.weight",
    "ConvNeXt checkpoint": "downsample_layers.0.0.weight",
    "ResNet": "layer1.0.conv1.weight",
    "Swin": "layers.0.blocks.0.attn.relative_position_bias_table",
    "CLIP": "visual.class_embedding",
    "SigLIP": "vision_model.encoder.layers.0.layer_norm1.weight",
    "SAM": "image_encoder.blocks.0.attn.rel_pos_h",
    "MAE": "decoder_blocks.0.norm1.weight",
    "XCiT": "cls_attn_blocks.0.norm1.weight",
    "CaiT": "blocks_token_only.0.norm1.weight",
    "BEiT": "blocks.0.attn.relative_position_bias_table",
    "EVA": "blocks.0.attn.q_bias",
    "DeiT": "dist_token",
    "EfficientNet": "conv_stem.weight",
}


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("config", [None, {"architecture": "some_net"}, {"model_type": "some"}])
def test_other_networks_are_named(kind, config, tmp_path):
    keys = [STRANGERS[kind], "cls_token", "pos_embed"]
    (tmp_path / "net").mkdir()
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / "net" / "pytorch_model.bin")
    if config:
        (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    origin = "" if not config else "timm " if "architecture" in config else "Hugging Face "
    with pytest.raises(ValueError, match=rf"this is an? {origin}.*{kind}.*dinodemo reads ViTs"):
        import_checkpoint(tmp_path / "net", root=tmp_path / "root")


def test_settings_that_contradict_the_weights_are_told(originals, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(weights_of(originals["dino/16"]), folder / "model.safetensors")
    for config, told in (
        ({"model_type": "beit"}, "says model_type 'beit', its weights are those of 'vit'"),
        ({"model_type": "vit", "num_attention_heads": 3}, "says 3 heads; expected a divisor of 128"),
        ({"model_type": "vit", "num_attention_heads": "2"}, "says '2' heads"),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=told):
            import_checkpoint(folder, root=tmp_path / "root")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        import_checkpoint(folder, root=tmp_path / "root")


def test_rotary_vits_that_are_not_dinov3_are_told(originals, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save(to_timm(weights_of(originals["dinov3"]), "dinov3"), folder / "pytorch_model.bin")
    (folder / "config.json").write_text('{"architecture": "vit_small_patch16_rope_224"}')
    with pytest.raises(ValueError, match="vit_small_patch16_rope_224 has rotary positions"):
        import_checkpoint(folder, root=tmp_path / "root")
    state = to_meta(weights_of(originals["dinov3"]), "dinov3")
    state["rope_embed.periods"] = torch.linspace(1, 50, 16)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="no powers of one base"):
        import_checkpoint(tmp_path / "odd.pth", root=tmp_path / "root")


def test_widths_without_a_number_of_heads_are_told(tmp_path):
    tf.Dinov2Model(tf.Dinov2Config(**LEARNT | {"hidden_size": 96})).save_pretrained(tmp_path / "narrow")
    (tmp_path / "narrow" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"96 wide, .* put a config.json"):
        import_checkpoint(tmp_path / "narrow", "other", tmp_path / "root")


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


FILES = {
    "an empty file": ("a.pth", b"", "is empty"),
    "an LFS pointer": (
        "a.safetensors",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "is a Git LFS pointer, not the file itself: run git lfs pull",
    ),
    "an error page": ("a.pth", b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page, not a checkpoint"),
    "an XML answer": ("a.pth", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "a web page, not a checkpoint"),
    "text": ("a.pth", b"Repository not found, sorry", "a text file that begins with 'Repository"),
    "GGUF": ("a.gguf", b"GGUF\x03\x00\x00\x00", "a GGUF file"),
    "HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "ONNX": ("a.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX file"),
    "ONNX under another name": ("a.pt", b"\x08\x07\x12\x07pytorch\x1a", "an ONNX file"),
    "a NumPy array": ("a.pth", b"\x93NUMPY\x01", "a NumPy array"),
    "gzip": ("a.pth", b"\x1f\x8b\x08", "a gzip archive: unpack it"),
    "tar": ("a.pth", b"\0" * 257 + b"ustar" + b"\0" * 20, "a tar archive: unpack it"),
    "a graph of TensorFlow": ("a.pb", b"\x08\x01\x02\xff", "a TensorFlow graph"),
    "TorchScript": ("a.pt", zipped(model__data_pkl=b"", model__constants_pkl=b""), "a TorchScript archive"),
    "a zip of photos": ("a.pth", zipped(cat_jpg=b""), r"a zip archive that is no checkpoint \(in it: cat.jpg\)"),
    "arrays of JAX": ("a.npz", numpy_archive(), "NumPy arrays"),
    "a cut-off zip": ("a.pth", saved({"w": torch.ones(999)})[:2000], "is cut off or damaged"),
    "a cut-off old file": ("a.pth", b"\x80\x02\x8a\nl\xfc\x9c", "damaged"),
    "cut-off safetensors": ("a.safetensors", b'\x40\0\0\0\0\0\0\0{"w":', "cut off or damaged safetensors"),
    "noise": ("a.pth", bytes(range(129, 256)) * 9, "is damaged, or no checkpoint"),
    "another ending": ("a.jpg", b"\xff\xd8\xff\xe0" * 9, "is no checkpoint; expected"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_checkpoint_are_named(kind, tmp_path):
    name, content, told = FILES[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        import_checkpoint(tmp_path / name, root=tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_folders_that_hold_no_one_checkpoint_are_told(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()

    def told() -> str:
        with pytest.raises(ValueError) as caught:
            import_checkpoint(folder, root=tmp_path / "root")
        return str(caught.value)

    assert "holds no weights; expected a PyTorch file" in told()
    (folder / "net.onnx").write_bytes(b"\x08")
    assert "net.onnx is an ONNX file" in told()
    for name in ("a.pth", "b.pth", "optimizer.pt"):
        (folder / name).write_bytes(b"\x80")
    assert "holds 2 checkpoints (a.pth, b.pth); name the file that you want" in told()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../a.pth"}}')
    assert "names 1 files" in told()
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "is damaged" in told()


def test_what_is_not_there_or_not_readable_is_told(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="there is no file or folder"):
        import_checkpoint(tmp_path / "gone.pth", root=tmp_path / "root")

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\); check its name and rights"):
        import_checkpoint(checkpoint, root=tmp_path / "root")


class Malicious:
    """Create a file when it is unpickled by a reader that runs code."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class OfSomeProject(torch.nn.Linear):
    """Stand for a whole model that was pickled with its class."""


@pytest.mark.parametrize("zip_format", [True, False])
def test_pickles_that_need_code_are_refused_unread(zip_format, originals, tmp_path):
    state = to_meta(weights_of(originals["dinov2"]), "dinov2")
    for content, needed in (
        ({**state, "extra": Malicious(tmp_path / "made")}, r"(posix|nt)\.system"),
        (OfSomeProject(2, 2), r"[\w.]+\.OfSomeProject"),
    ):
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zip_format)
        with pytest.raises(ValueError, match=rf"needs the code {needed} to be read, and dinodemo runs no code"):
            import_checkpoint(tmp_path / "x.pth", root=tmp_path / "root")
    assert not (tmp_path / "made").exists() and not (tmp_path / "root").exists()
