"""Random models of every family, and the writers of other layouts: the inverse of what an import does."""

import re
from pathlib import Path

import torch
import transformers as tf
from safetensors.torch import load_file

from dinodemo.backbones.network import load_module

WIDTH = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
LEARNT = {**WIDTH, "mlp_ratio": 2, "image_size": 56, "patch_size": 14}
ROTARY = {**WIDTH, "intermediate_size": 192, "patch_size": 16, "num_register_tokens": 4}
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
PLAIN = {**WIDTH, "intermediate_size": 256, "layer_norm_eps": 1e-6}
MAKE = {
    "dino/16": lambda: tf.ViTModel(tf.ViTConfig(**PLAIN, image_size=64, patch_size=16), add_pooling_layer=False),
    "dino/8": lambda: tf.ViTModel(tf.ViTConfig(**PLAIN, image_size=32, patch_size=8), add_pooling_layer=False),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**LEARNT)),
    "dinov2-swiglu": lambda: tf.Dinov2Model(tf.Dinov2Config(**LEARNT | {"mlp_ratio": 4}, use_swiglu_ffn=True)),
    "dinov2-registers": lambda: tf.Dinov2WithRegistersModel(
        tf.Dinov2WithRegistersConfig(**LEARNT, num_register_tokens=4)
    ),
    "dinov2-registers-swiglu": lambda: tf.Dinov2WithRegistersModel(
        tf.Dinov2WithRegistersConfig(**LEARNT | {"mlp_ratio": 4}, num_register_tokens=3, use_swiglu_ffn=True)
    ),
    "dinov3": lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**ROTARY)),
    "dinov3-gated": lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**ROTARY, **GATED)),
    "dinov3-gated-unbiased": lambda: tf.DINOv3ViTModel(
        tf.DINOv3ViTConfig(**ROTARY, **GATED, query_bias=False, value_bias=False)
    ),
    "dinov3-key-bias": lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**ROTARY, key_bias=True)),
}
WORDS = {"dino/": "DINO ViT", "dinov2": "DINOv2", "dinov2-registers": "DINOv2 with registers", "dinov3": "DINOv3"}
META = (  # Hugging Face's name -> Meta's
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.)?layer\.", "blocks."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.(output\.dense|o_proj)", "attn.proj"),
    (r"attention\.(attention\.)?(q|k|v)(uery|ey|alue|_proj)\.", r"attn.\2."),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(?<!attn\.)\boutput\.dense", "mlp.fc2"),
    (r"mlp\.weights_in", "mlp.w12"),
    (r"mlp\.weights_out", "mlp.w3"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
)
TIMM = (  # Meta's name -> timm's
    (r"mlp\.w12", "mlp.fc1"),
    (r"mlp\.w3", "mlp.fc2"),
    (r"^(register_tokens|storage_tokens)", "reg_token"),
)


def save_originals(root: Path) -> dict[str, Path]:
    """Save a random model of each family, with weights that are neither tiny nor alike."""
    torch.set_num_threads(1)
    folders = {}
    for number, (family, make) in enumerate(MAKE.items()):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            model = make().eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    noise = torch.randn_like(parameter)
                    parameter.copy_(0.2 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
        folders[family] = root / family.replace("/", "-")
        model.save_pretrained(folders[family])
    return folders


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def renamed(state: dict, rules) -> dict:
    found = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        found[key] = value
    return found


def to_meta(state: dict, family: str) -> dict:
    """Write a Hugging Face state dict as Meta's code does."""
    meta, rotary = renamed(state, META), family.startswith("dinov3")
    for index in range(WIDTH["num_hidden_layers"]):
        attention = f"blocks.{index}.attn."
        q, k, v = (meta.pop(f"{attention}{part}.weight") for part in "qkv")
        meta[f"{attention}qkv.weight"] = torch.cat([q, k, v])
        biases = [meta.pop(f"{attention}{part}.bias", None) for part in "qkv"]
        if biases[0] is not None:
            ones, masked = torch.ones(WIDTH["hidden_size"]), biases[1] is None
            # what stands in the masked part does not matter
            q, k, v = (7 * ones if bias is None else bias for bias in biases)
            meta[f"{attention}qkv.bias"] = torch.cat([q, k, v])
            if rotary:
                meta[f"{attention}qkv.bias_mask"] = torch.cat([ones, 0 * ones if masked else ones, ones])
    return rotary_to_meta(meta, family) if rotary else meta


def rotary_to_meta(meta: dict, family: str) -> dict:
    meta = renamed(
        meta, (("register_tokens", "storage_tokens"), ("mlp.down_proj", "mlp.fc2"), ("mlp.up_proj", "mlp.fc1"))
    )
    if "gated" in family:
        meta = renamed(meta, (("mlp.fc2", "mlp.w3"), ("mlp.fc1", "mlp.w2"), ("mlp.gate_proj", "mlp.w1")))
    meta["mask_token"] = meta["mask_token"].reshape(1, -1)
    meta["rope_embed.periods"] = 100.0 ** (torch.arange(16) / 16)  # 64 features a head
    return meta


def to_timm(state: dict, family: str) -> dict:
    """Write a Hugging Face state dict as timm does."""
    meta = to_meta(state, family)
    meta.pop("mask_token", None)
    if family.startswith("dinov3"):
        return rotary_to_timm(meta)
    if "register_tokens" in meta:  # their positions have no place for the class token
        meta["cls_token"] = meta["cls_token"] + meta["pos_embed"][:, :1]
        meta["pos_embed"] = meta["pos_embed"][:, 1:]
    return renamed(meta, TIMM)


def rotary_to_timm(meta: dict) -> dict:
    timm = {}
    for key, value in meta.items():
        if key.endswith("qkv.bias"):
            timm[key.replace("qkv.bias", "q_bias")], _, timm[key.replace("qkv.bias", "v_bias")] = value.chunk(3)
        elif not key.endswith(("bias_mask", "periods")):
            timm[key] = value
    rules = (("mlp.w1", "mlp.fc1_g"), ("mlp.w2", "mlp.fc1_x"), (r"ls(\d)\.gamma", r"gamma_\1"))
    return renamed(timm, (*rules, *TIMM))


def run(folder: Path, rows: int, columns: int) -> torch.Tensor:
    model = load_module("model", folder)
    patch = model.config.patch_size
    options = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pixels = torch.randn(1, 3, rows * patch, columns * patch)
    with torch.inference_mode():
        return model(pixel_values=pixels, **options).last_hidden_state


def assert_same(imported: Path, original: Path) -> None:
    for rows, columns in ((4, 4), (3, 5)):
        torch.testing.assert_close(run(imported, rows, columns), run(original, rows, columns), atol=1e-6, rtol=0)


def words(family: str) -> str:
    return next(text for start, text in sorted(WORDS.items(), reverse=True) if family.startswith(start))


def under(prefix: str, state: dict) -> dict:
    return {prefix + key: value for key, value in state.items()}
