"""A model written as somebody else writes it, and imported, says the same as before."""

import argparse
import json
import re
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file

from dinodemo.backbones.convert import import_checkpoint
from dinodemo.backbones.network import load_module

from .foreign import (
    LEARNT,
    MAKE,
    ROTARY,
    assert_same,
    save_originals,
    to_meta,
    to_timm,
    under,
    weights_of,
    words,
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """Give a model folder per family; not to be changed."""
    return save_originals(tmp_path_factory.mktemp("originals"))


@pytest.mark.parametrize("family", MAKE)
def test_what_meta_writes(family, originals, tmp_path):
    torch.save(to_meta(weights_of(originals[family]), family), tmp_path / "weights.pth")
    imported = import_checkpoint(tmp_path / "weights.pth", root=tmp_path / "root")
    assert_same(imported.folder, originals[family])
    assert (imported.name, imported.folder) == ("weights", tmp_path / "root" / "weights")
    assert imported.family == f"Meta {words(family)}"
    heads_are_told = family.startswith("dinov3")  # by the length of the rotation's periods
    assert heads_are_told != any("heads taken as width / 64" in note for note in imported.notes)


@pytest.mark.parametrize("family", [family for family in MAKE if family != "dinov3-key-bias"])
@pytest.mark.parametrize("form", ["folder", "bin", "bare"])
def test_what_timm_writes(family, form, originals, tmp_path):
    state, folder = to_timm(weights_of(originals[family]), family), tmp_path / "model"
    folder.mkdir()
    if form == "folder":
        save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")
    else:
        torch.save(state, folder / ("pytorch_model.bin" if form == "bin" else "weights.pth"))
    if form != "bare":
        settings = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
        told = {"architecture": f"vit_tiny_{words(family).split()[0].lower()}", "pretrained_cfg": settings}
        (folder / "config.json").write_text(json.dumps(told))
    imported = import_checkpoint(folder, root=tmp_path / "root")
    assert_same(imported.folder, originals[family])
    writer = "Meta" if form == "bare" and family.startswith("dino/") else "timm"  # the same keys
    assert imported.family == f"{writer} {words(family)}"
    processor = json.loads((imported.folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == ([0.485, 0.456, 0.406] if form == "bare" else [0.5, 0.4, 0.3])


@pytest.mark.parametrize("family", MAKE)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "dinov2.", "vit.", "model."])
def test_what_hugging_face_writes(family, prefix, originals, tmp_path):
    state, folder = {prefix + key: value for key, value in weights_of(originals[family]).items()}, tmp_path / "model"
    folder.mkdir()
    if prefix in ("module.", "vit."):
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    if prefix != "backbone.":
        (folder / "config.json").write_bytes((originals[family] / "config.json").read_bytes())
        (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    imported = import_checkpoint(folder, root=tmp_path / "root")
    assert_same(imported.folder, originals[family])
    assert imported.family == f"Hugging Face {words(family)}"
    told = json.loads((imported.folder / "preprocessor_config.json").read_text())["image_mean"] == [0.1, 0.2, 0.3]
    assert told == (prefix != "backbone.")


@pytest.mark.parametrize("family", MAKE)
def test_what_a_model_of_transformers_calls_its_parameters(family, originals, tmp_path):
    state = load_module("model", originals[family]).state_dict()  # newer names than those of its files
    torch.save(state, tmp_path / "state.pt")
    assert_same(import_checkpoint(tmp_path / "state.pt", root=tmp_path / "root").folder, originals[family])


def test_the_settings_of_hugging_face_are_heeded(tmp_path):
    shape = {**LEARNT, "num_attention_heads": 4, "layer_norm_eps": 1e-3}  # 32 features a head
    model = tf.Dinov2Model(tf.Dinov2Config(**shape)).eval()
    model.save_pretrained(tmp_path / "model")
    imported = import_checkpoint(tmp_path / "model", "other", tmp_path / "root")
    assert_same(imported.folder, tmp_path / "model")
    config = json.loads((imported.folder / "config.json").read_text())
    assert (config["num_attention_heads"], config["layer_norm_eps"]) == (4, 1e-3)
    assert not [note for note in imported.notes if "heads" in note]


def test_shards_are_read_together(originals, tmp_path):
    state, folder = weights_of(originals["dinov2"]), tmp_path / "model"
    folder.mkdir()
    keys, names = sorted(state), ("a.bin", "b.bin")
    for part, name in enumerate(names):
        torch.save({key: state[key] for key in keys[part::2]}, folder / name)
    index = {"weight_map": {key: names[number % 2] for number, key in enumerate(keys)}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    imported = import_checkpoint(folder, root=tmp_path / "root")
    assert_same(imported.folder, originals["dinov2"])
    assert set(json.loads((imported.folder / "source.json").read_text())["source_sha256"]) == set(names)
    (folder / "b.bin").unlink()
    with pytest.raises(ValueError, match=r"names 2 files, 1 are not beside it"):
        import_checkpoint(folder, "again", tmp_path / "root")


def spoilt(state: dict) -> dict:
    return {key: value + 1 for key, value in state.items()}


HEADS = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight": torch.ones(2, 2)}
WRAPPERS = {
    "teacher of DINOv2's training": lambda s: {"teacher": under("backbone.", s) | HEADS},
    "student and teacher in one": lambda s: {
        "model": under("student.backbone.", spoilt(s)) | under("teacher.backbone.", s) | under("teacher.", HEADS)
    },
    "three networks of DINOv3's training": lambda s: {
        "model": under("student.backbone.", spoilt(s))
        | under("model_ema.backbone.", s)
        | under("gram_teacher.backbone.", spoilt(s))
    },
    "full checkpoint of DINO": lambda s: {
        "student": under("module.backbone.", spoilt(s)) | {"module.head.mlp.0.weight": torch.ones(2, 2)},
        "teacher": under("module.backbone.", s) | {"module.head.mlp.0.weight": torch.ones(2, 2)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", lr=0.1),
        "dino_loss": {"center": torch.ones(1, 4)},
    },
    "only a student": lambda s: {"student": under("module.backbone.", s), "epoch": 1},
    "sharded and compiled": lambda s: {
        "teacher.backbone._fsdp_wrapped_module._orig_mod." + key.replace(".attn.", "._fsdp_wrapped_module.attn."): value
        for key, value in s.items()
    },
    "chunks of blocks": lambda s: {re.sub(r"^blocks\.(\d+)", r"blocks.\1.\1", key): value for key, value in s.items()},
    "a part that lightly-train exports": lambda s: under("wrapped_model._model.", s),
    "a state of Lightning's": lambda s: {
        "state_dict": under("teacher_embedding_model.wrapped_model._model.", s)
        | under("student_embedding_model.wrapped_model._model.", spoilt(s))
        | {"student_head.w": torch.ones(2)},
        "epoch": 1,
        "pytorch-lightning_version": "2.5",
    },
    "a model with a classifier": lambda s: {
        "state_dict": {**s, "head.weight": torch.ones(3, 128), "fc_norm.bias": s["norm.bias"]}
    },
}


@pytest.mark.parametrize("family", ["dinov2-registers", "dinov3", "dino/16"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_and_prefixes(wrapper, family, originals, tmp_path):
    content = WRAPPERS[wrapper](to_meta(weights_of(originals[family]), family))
    torch.save(content, tmp_path / "checkpoint.pth")
    imported = import_checkpoint(tmp_path / "checkpoint.pth", root=tmp_path / "root")
    assert_same(imported.folder, originals[family])
    notes = " ".join(imported.notes)
    assert "head" not in str(list(content)) or "ignored" in notes
    if wrapper == "only a student":
        assert "taken from 'student'" in notes
    if wrapper == "full checkpoint of DINO":
        assert "taken from 'teacher'; the file holds student, optimizer, epoch, args, dino_loss too" in notes


def test_files_of_before_pytorch_1_6(originals, tmp_path):
    state = to_meta(weights_of(originals["dino/8"]), "dino/8")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(import_checkpoint(tmp_path / "old.pth", root=tmp_path / "root").folder, originals["dino/8"])


def test_exports_of_lightly_train_are_found_in_its_run(originals, tmp_path):
    (tmp_path / "run" / "exported_models").mkdir(parents=True)
    torch.save(to_meta(weights_of(originals["dinov2"]), "dinov2"), tmp_path / "run/exported_models/exported_last.pt")
    imported = import_checkpoint(tmp_path / "run", root=tmp_path / "root")
    assert imported.name == "run"
    assert_same(imported.folder, originals["dinov2"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype, originals, tmp_path):
    state = {key: value.to(dtype) for key, value in to_meta(weights_of(originals["dinov3"]), "dinov3").items()}
    state["rope_embed.periods"] = 100.0 ** (torch.arange(16) / 16)
    torch.save(state, tmp_path / "half.pth")
    imported = import_checkpoint(tmp_path / "half.pth", root=tmp_path / "root")
    found = weights_of(imported.folder)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found["norm.weight"], state["norm.weight"].float())
    assert any("weights are kept as float32" in note for note in imported.notes)


@pytest.mark.parametrize(("base", "rounded"), [(100.0, True), (1000.0, False)])
def test_the_base_of_the_rotation_is_read(base, rounded, originals, tmp_path):
    state = to_meta(weights_of(originals["dinov3"]), "dinov3")
    periods = base ** (torch.arange(16) / 16)
    state["rope_embed.periods"] = periods.bfloat16() if rounded else periods
    torch.save(state, tmp_path / "rotary.pth")
    imported = import_checkpoint(tmp_path / "rotary.pth", root=tmp_path / "root")
    assert json.loads((imported.folder / "config.json").read_text())["rope_theta"] == pytest.approx(base, rel=1e-4)
    assert rounded == any("periods are rounded" in note for note in imported.notes)


def test_wider_heads_are_told_by_the_rotation(tmp_path):
    shape = {**ROTARY, "num_attention_heads": 1}  # 128 features a head, as in the 7B model
    tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**shape)).eval().save_pretrained(tmp_path / "original")
    state = to_meta(weights_of(tmp_path / "original"), "dinov3")
    state["rope_embed.periods"] = 100.0 ** (torch.arange(32) / 32)
    state["local_cls_norm.weight"] = torch.ones(128)  # for small crops in training
    torch.save(state, tmp_path / "wide.pth")
    imported = import_checkpoint(tmp_path / "wide.pth", root=tmp_path / "root")
    assert_same(imported.folder, tmp_path / "original")


@pytest.mark.parametrize("layers", ["positions of registers", "no layer scale"])
def test_other_vits_with_registers_can_be_expressed(layers, originals, tmp_path):
    state = to_timm(weights_of(originals["dinov2-registers"]), "dinov2-registers")
    if layers == "no layer scale":
        state = {key: value for key, value in state.items() if ".ls" not in key}
    else:
        state["pos_embed"] = torch.cat([0.2 * torch.randn(1, 5, 128), state["pos_embed"]], dim=1)
    torch.save(state, tmp_path / "vit.pth")
    found = weights_of(import_checkpoint(tmp_path / "vit.pth", root=tmp_path / "root").folder)
    if layers == "no layer scale":
        assert (found["encoder.layer.1.layer_scale2.lambda1"] == 1).all()
    else:
        assert torch.equal(found["embeddings.register_tokens"], state["reg_token"] + state["pos_embed"][:, 1:5])
        assert found["embeddings.position_embeddings"].shape == (1, 17, 128)


@pytest.mark.parametrize(
    ("file", "mean"), [("dinov3_vitl16_pretrain_sat493m-ea.pth", 0.430), ("dinov3_vits16_lvd1689m.pth", 0.485)]
)
def test_satellite_weights_are_known_by_their_name(file, mean, originals, tmp_path):
    torch.save(to_meta(weights_of(originals["dinov3"]), "dinov3"), tmp_path / file)
    imported = import_checkpoint(tmp_path / file, root=tmp_path / "root")
    assert json.loads((imported.folder / "preprocessor_config.json").read_text())["image_mean"][0] == mean
    assert any("normalised" in note for note in imported.notes)


def test_lingbot_is_known_by_its_name(originals, tmp_path):
    folder = tmp_path / "lingbot-vision-vit-giant"
    (folder / "configs").mkdir(parents=True)
    torch.save(to_meta(weights_of(originals["dinov3-gated-unbiased"]), "dinov3-gated-unbiased"), folder / "model.pt")
    imported = import_checkpoint(folder, root=tmp_path / "root")
    assert imported.family == "LingBot-Vision (DINOv3 architecture)"
    assert_same(imported.folder, originals["dinov3-gated-unbiased"])
