"""Features against the eager path of transformers, in every family."""

import json

import numpy as np
import pytest
import torch
from closeness import close
from PIL import Image
from transformers import AutoModel

from dinodemo import Engine, backbones
from dinodemo.io.images import IMAGENET_MEAN, IMAGENET_STD, network_input

FAMILIES = ["dinov2", "dinov2-registers", "dino-v1", "dinov3"]
SIZES = [(60, 90), (37, 53), (1, 2000)]


class Eager:
    """Be the slow reference: transformers' own eager attention, with every N x N matrix kept."""

    def __init__(self, engine: Engine, folder):
        row = engine.backbone
        self.patch, self.prefix = row.patch_size, 1 + row.registers
        model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        self.options = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
        self.model, self.norm = model, model.layernorm if hasattr(model, "layernorm") else model.norm

    @torch.inference_mode()
    def __call__(self, picture, resolution):
        rgb = network_input(picture, resolution, self.patch)
        pixels = (rgb / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        pixels = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        output = self.model(pixel_values=pixels, output_attentions=True, output_hidden_states=True, **self.options)
        self.grid = rgb.shape[0] // self.patch, rgb.shape[1] // self.patch
        self.attentions = torch.cat(output.attentions).numpy()  # [L, heads, T, T]
        self.hidden = [hidden[0].numpy() for hidden in output.hidden_states[1:]]
        self.layers = [self.norm(hidden)[0].numpy() for hidden in output.hidden_states[1:]]
        self.last = output.last_hidden_state[0].numpy()
        return self


@pytest.fixture(scope="module")
def eager(tiny_folders):
    def run(engine, family, picture, resolution):
        return Eager(engine, tiny_folders[family])(picture, resolution)

    return run


# agreement with transformers' eager path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_agree_with_the_eager_path(family, size, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture(*size)
    reference = eager(engine, family, picture, 112)
    f = engine.features(picture, resolution=112)
    assert f.registers.shape == (engine.backbone.registers, 32)
    close(f.cls, reference.last[0])
    close(f.registers, reference.last[1 : reference.prefix])
    close(f.patches, reference.last[reference.prefix :].reshape(*reference.grid, 32))
    norms = np.linalg.norm(reference.hidden[-1][reference.prefix :], axis=-1)
    np.testing.assert_allclose(f.patch_norms, norms.reshape(reference.grid), rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_agrees_with_the_eager_path(family, size, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture(*size)
    reference = eager(engine, family, picture, 112)
    f = engine.features(picture, resolution=112, attention=True)
    cls_rows = reference.attentions[:, :, 0]
    assert f.layer_attention.shape == (3, 4, *reference.grid)
    close(f.layer_attention, cls_rows[..., reference.prefix :].reshape(3, 4, *reference.grid))
    close(f.prefix_attention, cls_rows[..., : reference.prefix])
    close(f.attention, f.layer_attention[-1], atol=0)
    assert np.ptp(f.attention) > 0.01  # not a uniform map, which anything would agree with


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_masses_sum_to_one(family, make_engine, make_picture):
    f = make_engine(family).features(make_picture(), resolution=112, attention=True)
    assert f.prefix_attention.shape == (3, 4, 1 + len(f.registers))
    close(f.layer_attention.sum(axis=(2, 3)) + f.prefix_attention.sum(axis=2), 1, atol=1e-5)
    assert (f.prefix_attention > 0).all()


@pytest.mark.parametrize("patch", [(0, 0), (1, 2), (-1, -1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_patchs_own_row_agrees_with_the_eager_path(family, patch, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture()
    reference = eager(engine, family, picture, 112)
    h, w = reference.grid
    row, column = patch[0] % h, patch[1] % w
    rows, cached = engine.attention_rows(picture, (row, column), resolution=112)
    token = reference.prefix + row * w + column
    close(rows, reference.attentions[:, :, token, reference.prefix :].reshape(3, 4, h, w))
    assert not cached
    assert engine.attention_rows(picture, (row, column), resolution=112)[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_agree_with_the_eager_path(family, make_engine, eager, make_picture):
    engine, picture = make_engine(family), make_picture()
    reference = eager(engine, family, picture, 112)
    result = engine.layers(picture, layers=(2, 0, 1, -1), resolution=112)
    for (cls, patches), layer in zip(result, (2, 0, 1, 2), strict=True):
        close(cls, reference.layers[layer][0])
        close(patches, reference.layers[layer][reference.prefix :].reshape(*reference.grid, 32))


def test_the_offline_default_agrees_with_the_eager_path(offline_engine, make_picture):
    reference = Eager(offline_engine, backbones.find_local(offline_engine.backbone.name))
    picture = make_picture(300, 400)
    reference(picture, 224)
    f = offline_engine.features(picture, resolution=224, attention=True)
    close(f.layer_attention, reference.attentions[:, :, 0, 1:].reshape(12, 6, *reference.grid))
    close(f.cls, reference.last[0], atol=1e-3)
    close(f.patches.reshape(-1, 384), reference.last[1:], atol=1e-3)
    assert "Offline default" in offline_engine.backbone.notice


# the contract


def test_features_are_read_only_float32_with_their_sizes(engine, make_picture):
    f = engine.features(make_picture(60, 90), resolution=112, attention=True)
    assert (f.image_size, f.input_size, f.grid) == ((60, 90), (98, 140), (7, 10))
    arrays = (f.cls, f.patches, f.registers, f.layer_attention, f.prefix_attention, f.patch_norms)
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    assert not any(a.flags.writeable for a in arrays)
    assert f.nbytes == sum(a.nbytes for a in arrays)
    assert f.backbone == engine.backbone.name


def test_attention_is_none_unless_asked_for(engine, make_picture):
    f = engine.features(make_picture(), resolution=112)
    assert (f.attention, f.layer_attention, f.prefix_attention) == (None, None, None)


def test_center_crop_gives_a_square(engine, make_picture):
    picture = make_picture(300, 200)
    f = engine.features(picture, resolution=112, crop="center")
    assert (f.image_size, f.input_size) == ((300, 200), (112, 112))
    square = network_input(picture, 112, 14, crop="center")
    close(f.cls, engine.features(square, resolution=112).cls, atol=1e-6)


def test_upright_size_is_reported_for_turned_photos(engine, tmp_path, make_picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(make_picture(60, 90)).save(tmp_path / "phone.jpg", exif=exif)
    assert engine.features(tmp_path / "phone.jpg", resolution=112).image_size == (90, 60)


@pytest.mark.parametrize(
    "ask",
    [
        lambda e, p: e.features(p, resolution=7),
        lambda e, p: e.features(p, resolution=112, crop="left"),
        lambda e, p: e.layers(p, layers=(3,), resolution=112),
        lambda e, p: e.layers(p, layers=(-4,), resolution=112),
        lambda e, p: e.attention_rows(p, (7, 0), resolution=112),
        lambda e, p: e.attention_rows(p, (0, -1), resolution=112),
        lambda e, p: list(e.features_batch([p], errors="ignore")),
        lambda e, p: e.features(b"nothing"),
        lambda e, p: Engine(e.backbone.name, device="cpu", dtype="int8"),
        lambda e, p: Engine(e.backbone.name, device="abacus"),
    ],
)
def test_wrong_questions_are_refused(ask, engine, make_picture):
    with pytest.raises(ValueError, match=r"\w+ .*\w+"):
        ask(engine, make_picture())


def test_bfloat16_gives_float32_arrays_close_to_the_exact_ones(make_engine, make_picture):
    exact = make_engine().features(make_picture(), resolution=112, attention=True)
    f = make_engine(dtype="bfloat16").features(make_picture(), resolution=112, attention=True)
    assert {f.cls.dtype, f.patches.dtype, f.attention.dtype} == {np.dtype(np.float32)}
    cosine = f.cls @ exact.cls / np.linalg.norm(f.cls) / np.linalg.norm(exact.cls)
    assert cosine > 0.99
    close(f.layer_attention.sum(axis=(2, 3)) + f.prefix_attention.sum(axis=2), 1, atol=1e-5)


def test_the_model_and_its_row_are_public(engine):
    assert engine.model is engine._network.module
    assert (engine.backbone.width, engine.backbone.depth) == (32, 3)


def test_a_request_is_told_to_take_more_than_the_network_alone(engine, make_picture):
    assert engine.request_seconds(100) == engine.estimate_seconds(100)
    engine.features(make_picture(), 56)
    assert engine.request_seconds(100) > engine.estimate_seconds(100)


def test_time_estimates_grow_with_tokens_and_follow_what_was_seen(engine, make_picture):
    assert engine.estimate_seconds(1000) > engine.estimate_seconds(100) > 0
    before = engine.estimate_seconds(1000)
    engine.features(make_picture(), resolution=112)
    assert engine.estimate_seconds(1000) != before


def test_sharded_weights_open_too(tmp_path, tiny_folder, engine, make_picture):
    model = AutoModel.from_pretrained(tiny_folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    sharded = Engine(str(tmp_path / "sharded"), device="cpu", dtype="float32")
    close(sharded.features(make_picture(), resolution=112).cls, engine.features(make_picture(), resolution=112).cls)
