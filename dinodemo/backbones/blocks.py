"""The transformer blocks of a checkpoint: read under their common names, and named as Hugging Face does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .parameters import Parameters

VIT, DINOV2, REGISTERS, DINOV3 = "vit", "dinov2", "dinov2_with_registers", "dinov3_vit"
_EPS = {VIT: 1e-6, DINOV2: 1e-6, REGISTERS: 1e-6, DINOV3: 1e-5}  # transformers' own for "vit" would be 1e-12
_LEARNT = {
    "norm1": "norm1",
    "norm2": "norm2",
    "ls1": "layer_scale1.lambda1",
    "ls2": "layer_scale2.lambda1",
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "proj": "attention.output.dense",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "in": "mlp.weights_in",
    "out": "mlp.weights_out",
}
_NAMES = {
    VIT: {
        **_LEARNT,
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    DINOV2: _LEARNT,
    DINOV3: {
        **_LEARNT,
        "q": "attention.q_proj",
        "k": "attention.k_proj",
        "v": "attention.v_proj",
        "proj": "attention.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
}
_NAMES[REGISTERS] = _LEARNT
_MOST_RATIO = 16


@dataclass(frozen=True)
class Scheme:
    """Return which parameters a block has, as seen in the first one; all others have to be alike."""

    kind: str
    width: int
    hidden: int
    gate: str  # "" for a plain MLP; the same as `up` where both halves are one matrix
    up: str
    down: str
    optional: frozenset[str]  # those of the first block that an architecture may lack

    def has(self, name: str) -> bool:
        """Return whether a parameter that may be lacking is there."""
        return name in self.optional


def is_gated(weights: Parameters) -> bool:
    """Distinguish a SwiGLU from a plain MLP; timm packs both halves into fc1, which is then twice as long."""
    up, down = weights.shape("blocks.0.mlp.fc1.weight"), weights.shape("blocks.0.mlp.fc2.weight")
    packed = len(up) == len(down) == 2 and up[0] == 2 * down[1]
    return packed or any(f"blocks.0.mlp.{name}.weight" in weights for name in ("w1", "w12"))


def read_scheme(weights: Parameters, kind: str, width: int) -> Scheme:
    """Look at the first block."""

    def first(*names: str) -> str:
        return next((name for name in names if f"blocks.0.mlp.{name}.weight" in weights), names[0])

    down = first("fc2", "w3", "down_proj")
    if is_gated(weights):
        gate = first("w1", "w12", "fc1")
        up = first("w2", "up_proj") if gate == "w1" else gate
    else:
        gate, up = "", first("fc1", "up_proj")
    hidden = (*weights.shape(f"blocks.0.mlp.{down}.weight"), 0, 0)[1]
    names = ["ls1.gamma", "attn.qkv.weight", "attn.qkv.bias_mask", "attn.proj.bias", f"mlp.{down}.bias"]
    names += [f"attn.{part}.bias" for part in ("qkv", "q", "k", "v")]
    return Scheme(kind, width, hidden, gate, up, down, frozenset(n for n in names if f"blocks.0.{n}" in weights))


def read_blocks(weights: Parameters, scheme: Scheme) -> list[dict[str, Tensor]]:
    """Take all blocks: norms, q, k, v, proj, gate, up, down, each with its leaf, and layer scales."""
    return [_block(weights, f"blocks.{index}.", scheme) for index in range(weights.depth)]


def _block(weights: Parameters, start: str, scheme: Scheme) -> dict[str, Tensor]:
    width = scheme.width
    block: dict[str, Tensor] = {}
    for norm in ("norm1", "norm2"):
        block |= {f"{norm}.{leaf}": weights.take(f"{start}{norm}.{leaf}", width) for leaf in ("weight", "bias")}
    if scheme.kind != VIT:
        for scale in ("ls1", "ls2"):
            scaled = scheme.has("ls1.gamma")
            block[scale] = weights.take(f"{start}{scale}.gamma", width) if scaled else torch.ones(width)
    block |= _attention(weights, f"{start}attn.", scheme) | _mlp(weights, f"{start}mlp.", scheme)
    return block


def _attention(weights: Parameters, start: str, scheme: Scheme) -> dict[str, Tensor]:
    width = scheme.width
    if scheme.has("attn.qkv.weight"):
        parts = weights.take(f"{start}qkv.weight", 3 * width, width).chunk(3)
    else:
        parts = tuple(weights.take(f"{start}{part}.weight", width, width) for part in "qkv")
    block = {f"{part}.weight": tensor for part, tensor in zip("qkv", parts, strict=True)}
    if scheme.has("attn.qkv.bias"):
        bias = weights.take(f"{start}qkv.bias", 3 * width)
        if scheme.has("attn.qkv.bias_mask"):  # DINOv3 multiplies with it, which takes the keys' bias away
            bias = bias * weights.take(f"{start}qkv.bias_mask", 3 * width)
        block |= {f"{part}.bias": tensor for part, tensor in zip("qkv", bias.chunk(3), strict=True)}
    wanted = [part for part in "qkv" if scheme.has(f"attn.{part}.bias")]
    block |= {f"{part}.bias": weights.take(f"{start}{part}.bias", width) for part in wanted}
    biased = scheme.kind != DINOV3 or scheme.has("attn.proj.bias")
    return block | _linear(weights, f"{start}proj", "proj", (width, width), biased)


def _mlp(weights: Parameters, start: str, scheme: Scheme) -> dict[str, Tensor]:
    biased = scheme.kind != DINOV3 or scheme.has(f"mlp.{scheme.down}.bias")
    width, hidden = scheme.width, scheme.hidden
    block = _linear(weights, start + scheme.down, "down", (width, hidden), biased)
    if not scheme.gate or scheme.gate != scheme.up:
        block |= _linear(weights, start + scheme.up, "up", (hidden, width), biased)
        return block | (_linear(weights, start + scheme.gate, "gate", (hidden, width), biased) if scheme.gate else {})
    for name, both in _linear(weights, start + scheme.up, "up", (2 * hidden, width), biased).items():
        block[name.replace("up", "gate")], block[name] = both.chunk(2)
    return block


def _linear(weights: Parameters, name: str, role: str, shape: tuple[int, int], biased: bool) -> dict[str, Tensor]:
    found = {f"{role}.weight": weights.take(f"{name}.weight", *shape)}
    return found | ({f"{role}.bias": weights.take(f"{name}.bias", shape[0])} if biased else {})


def block_config(blocks: list[dict[str, Tensor]], scheme: Scheme, source: object) -> dict:
    """Return what config.json says of the blocks; raises ValueError where transformers has no word for it."""
    eps, gated = {"layer_norm_eps": _EPS[scheme.kind]}, bool(scheme.gate)
    if scheme.kind == DINOV3:
        # transformers applies its `hidden_act` to the gate as well, which is SiLU in Meta's code
        return eps | {
            "intermediate_size": scheme.hidden,
            "use_gated_mlp": gated,
            "hidden_act": "silu" if gated else "gelu",
            "query_bias": "q.bias" in blocks[0],
            "key_bias": _has_key_bias(blocks),
            "value_bias": "v.bias" in blocks[0],
            "proj_bias": "proj.bias" in blocks[0],
            "mlp_bias": "down.bias" in blocks[0],
        }
    config = eps | {"hidden_act": "gelu", "qkv_bias": "q.bias" in blocks[0]}
    if scheme.kind == VIT:
        return config | {"intermediate_size": scheme.hidden}
    return config | {"mlp_ratio": _mlp_ratio(scheme, source), "use_swiglu_ffn": gated}


def _mlp_ratio(scheme: Scheme, source: object) -> int:
    """Return the whole ratio that makes transformers' MLP as wide as this one."""
    for ratio in range(1, _MOST_RATIO + 1):
        plain = ratio * scheme.width
        if scheme.hidden == ((int(plain * 2 / 3) + 7) // 8 * 8 if scheme.gate else plain):
            return ratio
    raise ValueError(
        f"{source} has MLPs of {scheme.hidden} for a width of {scheme.width}; transformers has DINOv2 "
        "only with a whole mlp_ratio"
    )


def _has_key_bias(blocks: list[dict[str, Tensor]]) -> bool:
    return any("k.bias" in block and bool(block["k.bias"].any()) for block in blocks)


def name_blocks(blocks: list[dict[str, Tensor]], scheme: Scheme) -> dict[str, Tensor]:
    """Return the parameters of all blocks under the names of a Hugging Face checkpoint."""
    names, found = _NAMES[scheme.kind], {}
    start = "layer." if scheme.kind == DINOV3 else "encoder.layer."
    without_keys = scheme.kind == DINOV3 and not _has_key_bias(blocks)
    for index, block in enumerate(blocks):
        if without_keys:
            block.pop("k.bias", None)
        if scheme.kind in (DINOV2, REGISTERS) and scheme.gate:
            block = _swiglu(block)
        for name, tensor in block.items():
            part, dot, leaf = name.partition(".")
            found[f"{start}{index}.{names[part]}{dot}{leaf}"] = tensor
    return found


def _swiglu(block: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pack gate and up into one matrix, as DINOv2's checkpoints have it."""
    rest = {name: tensor for name, tensor in block.items() if name.split(".")[0] not in ("gate", "up", "down")}
    for leaf in ("weight", "bias"):
        rest[f"in.{leaf}"] = torch.cat([block[f"gate.{leaf}"], block[f"up.{leaf}"]])
        rest[f"out.{leaf}"] = block[f"down.{leaf}"]
    return rest
