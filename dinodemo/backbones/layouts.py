"""Turn the state dict of a ViT, as Meta, timm, lightly-train or transformers write it, into a Hugging Face model."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .blocks import (
    DINOV2,
    DINOV3,
    REGISTERS,
    VIT,
    block_config,
    is_gated,
    name_blocks,
    read_blocks,
    read_scheme,
)
from .parameters import Parameters
from .registry import LIKELY

CLASSES = {VIT: "ViTModel", DINOV2: "Dinov2Model", REGISTERS: "Dinov2WithRegistersModel", DINOV3: "DINOv3ViTModel"}
WORDS = {VIT: "DINO ViT", DINOV2: "DINOv2", REGISTERS: "DINOv2 with registers", DINOV3: "DINOv3"}
HEAD_WIDTH = 64
HEADS = {1152: 16, 1280: 16, 1408: 16}  # the so400m, huge and giant of ViTs with learnt positions: wider heads
WIDE_DINOV3 = 4096  # the 7B model: heads of 128
ROPE_BASE = 100.0
# what a config.json of Hugging Face's knows and tensors do not tell
_DECLARED = ("num_attention_heads", "layer_norm_eps", "hidden_act", "rope_theta", "image_size")


@dataclass
class Converted:
    """Represent a model as Hugging Face keeps it: config.json and tensors, with what was chosen on the way."""

    kind: str
    config: dict
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """Return the architecture in words."""
        return WORDS[self.kind]


def convert(state: dict[str, Tensor], declared: dict, source: object) -> Converted:
    """Convert the state dict of one ViT.

    Args:
        state: its tensors, under their own names without a prefix.
        declared: the config.json beside it, of Hugging Face's or timm's; {} where there is none.
        source: the file or folder, for the messages.

    Returns:
        the model with its configuration, shapes being taken from the tensors.

    Raises:
        ValueError: when a parameter is missing, unknown, not finite or of a wrong shape, or if transformers has no
            such architecture.
    """
    weights = Parameters(state)
    notes: list[str] = []
    _refuse_variants(weights, source)
    kind = _kind(weights, declared, source)
    width, patch = _patches(weights, source)
    shape = {"hidden_size": width, "num_hidden_layers": weights.depth, "patch_size": patch, "num_channels": 3}
    shape |= {"num_attention_heads": _heads(weights, kind, width, declared, notes, source)}
    tensors = _embeddings(weights, kind, shape, notes, source)
    scheme = read_scheme(weights, kind, width)
    blocks = read_blocks(weights, scheme)
    norm = "norm" if kind == DINOV3 else "layernorm"
    tensors |= {f"{norm}.{leaf}": weights.take(f"norm.{leaf}", width) for leaf in ("weight", "bias")}
    notes += weights.finish(source)
    shape |= block_config(blocks, scheme, source)
    tensors |= name_blocks(blocks, scheme)
    if kind == VIT:
        notes.append("a plain ViT: weights do not tell DINO's training from others of the same architecture")
    if weights.kinds - {"float32"}:
        notes.append(f"{', '.join(sorted(weights.kinds - {'float32'}))} weights are kept as float32")
    config = {"architectures": [CLASSES[kind]], "model_type": kind, **shape, "dtype": "float32"}
    if declared.get("model_type") == kind:
        config |= {
            key: declared[key] for key in _DECLARED if key in declared and (key != "image_size" or kind == DINOV3)
        }
    return Converted(kind, config, {key: value.clone().contiguous() for key, value in tensors.items()}, notes)


def _refuse_variants(weights: Parameters, source: object) -> None:
    if not LIKELY["depth"][0] <= weights.depth <= LIKELY["depth"][1]:
        raise ValueError(
            f"{source} has {weights.depth} transformer blocks; expected {LIKELY['depth'][0]} to "
            f"{LIKELY['depth'][1]}: it is cut down, or no ViT"
        )
    if "cls_norm.weight" in weights:
        raise ValueError(
            f"{source} norms its class token apart from its patches (untie_cls_and_patch_norms); "
            "transformers has no such DINOv3"
        )


def _kind(weights: Parameters, declared: dict, source: object) -> str:
    """Return the architecture by its tensors; the settings beside them must not contradict."""
    if "pos_embed" in weights:
        plain = "blocks.0.ls1.gamma" not in weights and not is_gated(weights)
        kind = REGISTERS if "register_tokens" in weights else VIT if plain else DINOV2
    else:
        _check_rotary(weights, declared, source)
        kind = DINOV3
    model_type = declared.get("model_type", kind)
    if model_type != kind:
        raise ValueError(
            f"{source} says model_type {model_type!r}, its weights are those of {kind!r}; "
            f"dinodemo reads {', '.join(CLASSES)}"
        )
    return kind


def _check_rotary(weights: Parameters, declared: dict, source: object) -> None:
    """Refuse ViTs without learnt positions that are not DINOv3: nothing in the weights tells their rotation."""
    architecture = declared.get("architecture", "")
    by_name = any(word in architecture for word in ("dinov3", "lingbot"))
    by_keys = "rope_embed.periods" in weights or ("register_tokens" in weights and "blocks.0.ls1.gamma" in weights)
    if not (by_name or "model_type" in declared or (by_keys and not architecture)):
        what = architecture or "ViT without position embeddings"
        raise ValueError(
            f"{source}: this {what} has rotary positions that are not known to be DINOv3's; "
            "dinodemo reads ViTs of the DINO, DINOv2 and DINOv3 architectures"
        )


def _patches(weights: Parameters, source: object) -> tuple[int, int]:
    shape = weights.shape("patch_embed.proj.weight")
    fits = len(shape) == 4 and shape[2] == shape[3] and shape[1] == 3
    if not fits or not all(
        LIKELY[key][0] <= n <= LIKELY[key][1] for key, n in (("width", shape[0]), ("patch", shape[2]))
    ):
        raise ValueError(
            f"{source} has a patch embedding of shape {shape or 'nothing'}; expected (width, 3, p, p): "
            "RGB pictures in square patches"
        )
    return shape[0], shape[2]


def _heads(weights: Parameters, kind: str, width: int, declared: dict, notes: list[str], source: object) -> int:
    """Return the number of heads: declared by the settings or by DINOv3's rotation, taken from the width else."""
    given = declared.get("num_attention_heads") or dict(declared.get("model_args") or {}).get("num_heads")
    if given:
        if not isinstance(given, int) or given < 1 or width % given:
            raise ValueError(f"the config.json of {source} says {given!r} heads; expected a divisor of {width}")
        return given
    if kind == DINOV3 and (periods := weights.shape("rope_embed.periods")):
        return max(1, width // (4 * periods[0]))
    if kind == DINOV3 and width == WIDE_DINOV3:
        notes.append("heads taken as width / 128, as the 7B model has them: the weights do not tell")
        return width // 128
    if kind != DINOV3 and width in HEADS:
        notes.append(f"heads taken as {HEADS[width]}, as ViTs of width {width} have them: the weights do not tell")
        return HEADS[width]
    if width % HEAD_WIDTH:
        raise ValueError(
            f"{source} is {width} wide, which is no multiple of {HEAD_WIDTH}: the number of its heads "
            "cannot be told; put a config.json of transformers beside it"
        )
    notes.append(f"heads taken as width / {HEAD_WIDTH}, {width // HEAD_WIDTH}: the weights do not tell")
    return width // HEAD_WIDTH


def _embeddings(weights: Parameters, kind: str, shape: dict, notes: list[str], source: object) -> dict[str, Tensor]:
    """Take what stands before the blocks; adds registers, positions and the rotation to the configuration."""
    width, patch = shape["hidden_size"], shape["patch_size"]
    projection = "embeddings.patch_embeddings" + ("" if kind == DINOV3 else ".projection")
    found = {
        f"{projection}.weight": weights.take("patch_embed.proj.weight", width, 3, patch, patch),
        f"{projection}.bias": weights.take("patch_embed.proj.bias", width),
        "embeddings.cls_token": weights.take("cls_token", 1, 1, width),
    }
    if kind == VIT:
        if weights.drop("mask_token"):
            notes.append("mask_token left out: only training uses it")
    else:
        mask = (1, 1, width) if kind == DINOV3 else (1, width)
        found["embeddings.mask_token"] = _mask_token(weights, width).reshape(mask)
    if kind in (REGISTERS, DINOV3):
        count = (*weights.shape("register_tokens"), 0, 0)[1]
        shape["num_register_tokens"] = count
        found["embeddings.register_tokens"] = (
            weights.take("register_tokens", 1, count, width)
            if "register_tokens" in weights
            else torch.zeros(1, 0, width)
        )
    if kind == DINOV3:
        shape |= {"image_size": 224, "rope_theta": _rope_base(weights, width, shape, notes, source)}
    else:
        shape["image_size"] = _positions(weights, found, width, notes, source) * patch
    return found


def _mask_token(weights: Parameters, width: int) -> Tensor:
    shape = weights.shape("mask_token")
    return weights.take("mask_token", *shape) if math.prod(shape or (0,)) == width else torch.zeros(width)


def _positions(weights: Parameters, found: dict, width: int, notes: list[str], source: object) -> int:
    """Add the position embeddings with a row for the class token; returns the side of their grid."""
    shape = weights.shape("pos_embed")
    total = shape[1] if len(shape) == 3 else 0
    positions = weights.take("pos_embed", 1, total, width)
    registers = found.get("embeddings.register_tokens", torch.zeros(1, 0, width))
    for front in (0, 1, 1 + registers.shape[1]):  # places before the grid: none, the class token, registers too
        side = math.isqrt(max(total - front, 0))
        if side and side * side == total - front:
            break
    else:
        raise ValueError(
            f"{source} has {total} position embeddings, which are no square grid with or without a class token"
        )
    if front == 0:  # timm's ViTs with registers keep the class token's position within the token
        notes.append("no position embedding of the class token in the file: taken as zero")
        positions = torch.cat([torch.zeros(1, 1, width), positions], dim=1)
    elif front > 1:
        notes.append("position embeddings of the registers added to the registers")
        found["embeddings.register_tokens"] = registers + positions[:, 1:front]
        positions = torch.cat([positions[:, :1], positions[:, front:]], dim=1)
    found["embeddings.position_embeddings"] = positions
    return side


def _rope_base(weights: Parameters, width: int, shape: dict, notes: list[str], source: object) -> float:
    """Read the base of the rotation out of the periods base^(i / n); transformers computes them anew."""
    count = max(1, width // shape["num_attention_heads"] // 4)
    if "rope_embed.periods" not in weights:
        notes.append(f"rotary positions taken as DINOv3's, base {ROPE_BASE:.0f}: the file does not tell")
        return ROPE_BASE
    periods = weights.take("rope_embed.periods", count).double()
    steps = torch.arange(count, dtype=torch.float64) / count
    usable = bool((periods > 0).all()) and count > 1
    base = math.exp(float((steps * periods.log()).sum() / (steps * steps).sum())) if usable else ROPE_BASE
    base = ROPE_BASE if abs(base / ROPE_BASE - 1) < 0.02 else base
    off = float((periods / base**steps - 1).abs().max())
    if not off < 0.01:  # bfloat16 rounds by 0.4 %
        raise ValueError(
            f"{source} has rotary periods that are no powers of one base (min_period and max_period were "
            "set); transformers has no such DINOv3"
        )
    if off > 1e-5:
        notes.append("rotary periods are rounded in the file; transformers computes them in full")
    return base
