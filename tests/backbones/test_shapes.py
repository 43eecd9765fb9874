"""Every shape of the table, with random weights, through everything that a backbone is used for.

Widths, heads, patches, registers and kinds of layers are the published ones. What is deep is cut to a few layers, since
all layers of a network are alike.
"""

import json

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from transformers import AutoModel

from dinodemo import Engine
from dinodemo.backbones import BACKBONES, describe
from dinodemo.tasks.attention.maps import attention_map
from dinodemo.tasks.compare.matches import match, similarity
from dinodemo.tasks.depth import DepthProbe
from dinodemo.tasks.pca.basis import PatchPCA
from dinodemo.tasks.retrieval import ImageIndex
from dinodemo.tasks.segmentation import ReferenceSegmenter
from dinodemo.train import train
from dinodemo.train.config import FinetuneConfig
from dinodemo.train.runfolder import read_metrics

DEPTH = 4  # what four-layer heads need
SHAPES = [
    "dino-vits16",
    "dino-vits8",
    "dinov2-small",
    "dinov2-base",
    "dinov2-large",
    "dinov2-giant",
    "dinov2-small-with-registers",
    "dinov3-vits16",
    "dinov3-vits16plus",
    "dinov3-vitb16",
    "lingbot-vitg16",
]
WIDE = 700  # from here on two layers are enough for a test's time
GATED_MLP = {"dinov3-vits16plus": 1536, "lingbot-vitg16": 4096}  # their hidden width


def build(name: str, depth: int):
    """Make a random transformers model of a row's shape."""
    row = BACKBONES[name]
    shape = {
        "hidden_size": row.width,
        "num_hidden_layers": depth,
        "num_attention_heads": row.heads,
        "patch_size": row.patch_size,
    }
    if name.startswith("dino-"):
        config = tf.ViTConfig(**shape, intermediate_size=4 * row.width, image_size=224, layer_norm_eps=1e-12)
        return tf.ViTModel(config, add_pooling_layer=False)
    if name.startswith("dinov2"):
        shape |= {"image_size": 518, "use_swiglu_ffn": "giant" in name}
        if row.registers:
            return tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**shape, num_register_tokens=4))
        return tf.Dinov2Model(tf.Dinov2Config(**shape))
    gated, biased = name in GATED_MLP, name != "lingbot-vitg16"
    return tf.DINOv3ViTModel(
        tf.DINOv3ViTConfig(
            **shape,
            intermediate_size=GATED_MLP.get(name, 4 * row.width),
            num_register_tokens=4,
            use_gated_mlp=gated,
            hidden_act="silu" if gated else "gelu",
            query_bias=biased,
            key_bias=False,
            value_bias=biased,
        )
    )


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SHAPES])
def folder(request, tmp_path_factory):
    """Write a random model of a shape, with a preprocessor."""
    name = request.param
    folder = tmp_path_factory.mktemp("shape") / name
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        model = build(name, 2 if BACKBONES[name].width > WIDE else DEPTH).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # fresh ones have zeros in them, and attention that is all alike
                parameter.add_(torch.randn_like(parameter), alpha=0.04)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    engine = Engine(str(folder), device="cpu", dtype="float32")
    torch.set_num_threads(1)  # tests run side by side
    return engine


@pytest.fixture(scope="module")
def side(engine):
    """Give the side of a small square picture: 6 x 6 patches."""
    return 6 * engine.backbone.patch_size


@pytest.fixture(scope="module")
def pictures(make_picture, side):
    return [make_picture(side, side + side // 2, seed=i) for i in range(4)]


def kind(name: str) -> tuple:
    """Return what a network's code depends on, beside its widths."""
    family = name.split("-")[0].replace("lingbot", "dinov3")
    return family, bool(BACKBONES[name].registers), "giant" in name or name in GATED_MLP


def test_every_kind_and_every_width_of_the_table_is_tried():
    rows = [name for name in BACKBONES if BACKBONES[name].hub_id]
    assert {kind(name) for name in rows} - {kind(name) for name in SHAPES} == {("dinov2", True, True)}  # both are tried
    assert {BACKBONES[name].width for name in rows} == {BACKBONES[name].width for name in SHAPES}
    assert {BACKBONES[name].patch_size for name in rows} == {BACKBONES[name].patch_size for name in SHAPES}


def test_the_shape_is_read_as_the_table_has_it(folder):
    row, table = describe(folder.name, folder), BACKBONES[folder.name]
    assert (row.width, row.heads, row.patch_size, row.registers) == (
        table.width,
        table.heads,
        table.patch_size,
        table.registers,
    )


def test_attention_agrees_with_the_plain_network(folder, engine, make_picture, side):
    picture = make_picture(side, side, seed=1)
    features = engine.features(picture, resolution=side, attention=True)
    plain = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = (torch.tensor(picture).permute(2, 0, 1)[None].float() / 255 - mean) / std
    options = {"interpolate_pos_encoding": True} if plain.config.model_type == "vit" else {}
    with torch.no_grad():
        output = plain(pixel_values=pixels, output_attentions=True, **options)
    prefix = 1 + engine.backbone.registers
    rows = output.attentions[-1][0, :, 0, prefix:].reshape(-1, *features.grid)
    np.testing.assert_allclose(features.attention, rows, atol=1e-4)
    tokens = output.last_hidden_state[0].numpy()
    np.testing.assert_allclose(features.cls, tokens[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(features.patches.reshape(-1, tokens.shape[1]), tokens[prefix:], rtol=1e-4, atol=1e-3)
    assert features.registers.shape == (engine.backbone.registers, engine.backbone.width)
    assert attention_map(features, mass=0.6).shape == features.grid


def test_pca_and_matching(engine, pictures, side):
    found = [engine.features(picture, resolution=side) for picture in pictures[:2]]
    colours = PatchPCA(3, foreground=None).fit(found).transform(found[0])
    assert colours.shape == (*found[0].grid, 3) and np.nanmin(colours) >= 0 and np.nanmax(colours) <= 1
    assert similarity(found[0], found[0]) == pytest.approx(1, abs=1e-5)
    pairs = match(found[0], found[0])
    assert len(pairs.scores) and np.isfinite(pairs.scores).all()


def test_segmentation(engine, pictures, side):
    mask = np.zeros(pictures[0].shape[:2], bool)
    mask[: side // 2, : side // 2] = True
    found = ReferenceSegmenter(engine, resolution=side).fit([(pictures[0], mask)]).predict(pictures[1])
    assert found.mask.shape == pictures[1].shape[:2] and np.isfinite(found.score).all() and 0 <= found.presence <= 1


def test_depth(engine, pictures, side, tmp_path):
    rows, columns = pictures[0].shape[:2]
    ramp = np.repeat(np.linspace(1, 4, rows, dtype=np.float32)[:, None], columns, axis=1)
    kind = "lin4" if engine.backbone.depth >= 4 else "lin1"
    probe = DepthProbe(resolution=side, epochs=2, bins=16, kind=kind).fit(engine, [(p, ramp) for p in pictures])
    probe.save(tmp_path / "probe.safetensors")
    depth = DepthProbe.load(tmp_path / "probe.safetensors").predict(engine, pictures[0])
    assert depth.shape == pictures[0].shape[:2] and np.isfinite(depth).all() and depth.min() > 0


def test_retrieval(engine, pictures, side, tmp_path):
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    index = ImageIndex(tmp_path / "index", engine, resolution=side)
    assert index.add(tmp_path).added == len(pictures)
    best = index.search(tmp_path / "2.png", k=1)[0]
    assert best.path.endswith("2.png") and best.cosine == pytest.approx(1, abs=1e-4)


def test_three_steps_of_training_an_export_and_its_tokens(folder, pictures, side, tmp_path):
    (tmp_path / "photos").mkdir()
    for i, picture in enumerate([*pictures, *(picture[:, ::-1] for picture in pictures)]):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{i}.png")
    patch = BACKBONES[folder.name].patch_size
    config = FinetuneConfig(
        backbone=str(folder),
        steps=3,
        batch_size=2,
        global_size=4 * patch,
        local_size=2 * patch,
        n_local=1,
        eval_size=4 * patch,
        prototypes=16,
        max_blocks=1,
        drop_path=0.0,
        eval_every=3,
        head_hidden=32,
        on_fall="continue",
    )
    train(tmp_path / "photos", tmp_path / "run", config, device="cpu")
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if line["kind"] == "train"]
    assert len(losses) == 3 and np.isfinite(losses).all()
    exported = Engine(str(tmp_path / "run"), device="cpu", dtype="float32")
    cls = exported.features(pictures[0], resolution=side).cls
    plain = AutoModel.from_pretrained(tmp_path / "run" / "export")
    assert np.isfinite(cls).all() and plain.config.hidden_size == len(cls)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
