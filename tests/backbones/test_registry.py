import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dinodemo import Engine, backbones
from dinodemo.backbones import BACKBONES, DEFAULT, OFFLINE_DEFAULT, canonical_name, find_local, is_complete, resolve

VIT_CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 14,
}


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
    families = {"dino-v": 4, "dinov2-": 8 + 2, "dinov3-": 4, "lingbot-": 2}
    assert {prefix: sum(name.startswith(prefix) for name in BACKBONES) for prefix in families} == families
    assert len({row.label for row in BACKBONES.values()}) == len(BACKBONES)
    assert all(row.download_mb > 0 and row.licence for row in BACKBONES.values())
    assert [row.name for row in BACKBONES.values() if row.gated] == [n for n in BACKBONES if n.startswith("dinov3")]


@pytest.mark.parametrize("name", [OFFLINE_DEFAULT, backbones.SALIENCY])
def test_stand_ins_say_what_they_are(name):
    assert BACKBONES[name].notice
    assert BACKBONES[name].hub_id is None
    assert "facebook/dinov2-small but not it" in BACKBONES[OFFLINE_DEFAULT].notice


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


def test_a_partial_weights_folder_is_passed_over(weights_folder):
    (write_model(weights_folder / DEFAULT) / "model.safetensors").unlink()
    assert find_local(DEFAULT) is None


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
    [
        "../x",
        "../../etc/x",
        "org/../x",
        "org/x/y",
        "nonsense",
        "org/",
        "/x",
        "org/..",
        "a b/c",
        "org/x..y",
        "org/x?y",
        "http://host/x",
        "org/x\n",
        "-x/y",
        ".hidden/x",
        "org\\x",
        "\0",
        "x" * 400,
        "org/" + "x" * 400,
    ],
    ids=repr,
)
def test_names_that_are_no_hub_id_are_unknown(name):
    with pytest.raises(ValueError, match="no backbone, folder or hub id called"):
        resolve(name)


def test_unknown_names_list_the_known_ones():
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


def test_a_checkpoint_file_is_told_how_to_be_imported(tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is a file.*dinodemo weights import"):
        resolve(str(tmp_path / "mine.pth"))


@pytest.mark.parametrize("hub_id", [row.hub_id for row in BACKBONES.values() if row.hub_id])
def test_a_typed_hub_id_is_the_row_of_the_table(hub_id):
    assert BACKBONES[canonical_name(hub_id)].hub_id == hub_id


def test_a_model_in_the_weights_folder_is_found_by_its_name(weights_folder):
    folder = write_model(weights_folder / "mine")
    row, found = resolve("mine")
    assert (row.name, row.width, found) == ("mine", 32, folder)
    assert backbones.imported_names() == ["mine"]


# what is refused when it is loaded


@pytest.fixture
def model(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    return folder


def test_weights_that_are_not_finite_are_refused_by_name(model):
    state = load_file(model / "model.safetensors")
    state["layernorm.weight"][3] = np.nan
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"not finite in 1 parameters, e\.g\. layernorm\.weight"):
        Engine(str(model), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"image_mean": [0.5',
        '{"image_mean": 0.5}',
        '{"image_std": [1, 1]}',
        '{"image_std": [0, 0, 0]}',
        '{"image_mean": ["a", 1, 1]}',
        "[]",
    ],
)
def test_a_broken_preprocessor_is_refused_by_name(content, model):
    (model / "preprocessor_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        Engine(str(model), device="cpu", dtype="float32")


def test_a_model_without_a_preprocessor_says_what_was_taken(model):
    assert "ImageNet" in resolve(str(model))[0].notice
    (model / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    assert resolve(str(model))[0].notice == ""
