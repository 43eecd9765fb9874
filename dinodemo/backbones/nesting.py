"""Find a ViT's state dict in a checkpoint, out of wrappers and prefixes, and name the networks that are no such ViT."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

WRAPPERS = (
    "teacher",
    "model_ema",
    "state_dict_ema",
    "ema",
    "model_state",
    "state_dict",
    "model",
    "module",
    "backbone",
    "network",
    "encoder",
    "train_model",
    "student",
)
READS = "dinodemo reads ViTs of the DINO, DINOv2 and DINOv3 architectures"
_DEEPEST = 4
_WRAPPED = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_BLOCK = re.compile(r"^(?:blocks|layers?|(?:model|encoder)\.layers?)\.\d+\.")
# parts that have no say in what the tokens are: heads, losses, the other network of a pair, what only training uses
_KNOWN = re.compile(
    r".*head.*|head_dist|heads|student.*|gram.*|optimi[sz]er.*|.*loss.*|.*criterion.*|center|fc_norm|pooler|classifier|"
    r"(?:linear|decode|auxiliary)_?.*|projectors?|.*predictor.*|queries|neck|local_cls_norm|masked_embed|lm_head|"
    r"_?input_mean|_?input_std|.*metrics?.*"
)
_STRANGERS = (
    (r"(^|\.)decoder_(blocks|pos_embed|embed)\b|decoder\.decoder_layers", "MAE (with its decoder)"),
    (r"(^|\.)(image_encoder|mask_decoder|prompt_encoder)\.|rel_pos_[hw]$", "SAM (Segment Anything)"),
    (
        r"(^|\.)(visual|vision_model|text_model)\.|text_projection|(^|\.)(norm_pre|ln_pre|pre_layrnorm)\.|class_embedding$",
        "CLIP or SigLIP",
    ),
    (r"layers\.\d+\.blocks\.\d+\..*relative_position_bias_table|(^|\.)swin", "Swin"),
    (r"relative_position_bias_table", "BEiT"),
    (
        r"downsample_layers\.|stages\.\d+\.(\d+|blocks\.\d+|layers\.\d+)\.(dwconv|conv_dw|depthwise_conv|gamma|layer_scale)",
        "ConvNeXt",
    ),
    (r"(^|\.)layer[1-4]\.\d+\.conv\d\.|encoder\.stages\.\d+\.layers\.\d+\.layer\.\d+\.convolution", "ResNet"),
    (r"cls_attn_blocks\.", "XCiT"),
    (r"blocks_token_only\.", "CaiT"),
    (r"(^|\.)(dist_token|distillation_token)$", "distilled DeiT"),
    (r"conv_stem\.|features\.\d+\.\d+\.block\.", "convolutional (EfficientNet or MobileNet)"),
)


def find_vit(content: dict, path: Path, config: dict) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict of the ViT in a checkpoint, under its own names, and what was chosen on the way.

    Args:
        content: the checkpoint as the file nests it.
        path: its file or folder, for the messages.
        config: the settings beside it; they may name the architecture.

    Raises:
        ValueError: when there is no such ViT in it, or more than one.
    """
    state, notes = _unwrap(content, path)
    state = {_WRAPPED.sub("", key): value for key, value in state.items()}
    _refuse_strangers(state, path, config)
    prefix = _prefix(state, path, config)
    if prefix:
        notes.append(f"weights taken from under {prefix!r}")
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    outside = [key for key in state if not key.startswith(prefix)]
    unknown = [key for key in outside if not is_ignorable(key)]
    if unknown:
        raise ValueError(f"{path} holds more than a ViT: {listed(unknown, 'unknown')}; save the backbone by itself")
    if outside:
        notes.append(ignored(outside))
    return inside, notes


def is_ignorable(key: str) -> bool:
    """Return whether a key belongs to a head or to training; nothing inside a block does."""
    return not _BLOCK.match(key) and any(_KNOWN.fullmatch(part) for part in key.split("."))


def listed(keys: list[str], what: str) -> str:
    """Name the first keys and their number."""
    more = ", ..." if len(keys) > 5 else ""
    return f"{len(keys)} {what} {'key' if len(keys) == 1 else 'keys'} ({', '.join(keys[:5])}{more})"


def ignored(keys: Iterable[str]) -> str:
    """Return a sentence on which keys were left out, by the part that they belong to."""
    parts = Counter(key.split(".")[0] for key in keys)
    return "ignored, as no part of the backbone: " + ", ".join(
        f"{part} ({n} {'key' if n == 1 else 'keys'})" for part, n in sorted(parts.items())
    )


def _unwrap(content: Mapping, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Go down into {"teacher": ...}, {"state_dict": ...} and their like."""
    notes: list[str] = []
    for _ in range(_DEEPEST):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        nested = {str(key): value for key, value in content.items() if isinstance(value, Mapping) and value}
        chosen = next((name for name in WRAPPERS if name in nested), None)
        if chosen is None or any(key.endswith("cls_token") for key in tensors):
            break
        others = ", ".join(str(key) for key in content if key != chosen)
        notes.append(f"weights taken from {chosen!r}" + (f"; the file holds {others} too" if others else ""))
        content = nested[chosen]
    if tensors:
        return tensors, notes
    if {"param_groups", "optimizer", "optimizer_state_dict"} & set(map(str, content)):
        raise ValueError(f"{path} holds the state of an optimiser and no weights; import the model's own checkpoint")
    raise ValueError(
        f"{path} holds no tensors, only: {', '.join(map(str, content)) or 'nothing'}; save model.state_dict()"
    )


def _prefix(state: dict[str, Tensor], path: Path, config: dict) -> str:
    """Choose the part of the state dict that is the ViT; a teacher comes before a student."""
    anchors = [key for key in state if key == "cls_token" or key.endswith(".cls_token")]
    prefixes = sorted({key.removesuffix("cls_token").removesuffix("embeddings.") for key in anchors})
    found = sorted(prefixes, key=_rank)
    if not found:
        _refuse_unknown(state, path, config)
    best = [prefix for prefix in found if _rank(prefix) == _rank(found[0])]
    if len(best) > 1:
        raise ValueError(f"{path} holds several ViTs ({', '.join(best)}); save the one that you want by itself")
    return best[0]


def _rank(prefix: str) -> int:
    if prefix.startswith("student"):
        return 3
    if "gram" in prefix:  # DINOv3's second teacher, frozen at an earlier step
        return 2
    return 0 if "teacher" in prefix or "ema" in prefix.split(".")[0].split("_") else 1


def _refuse_strangers(state: dict[str, Tensor], path: Path, config: dict) -> None:
    if any("flat_param" in key for key in state):
        raise ValueError(
            f"{path} is one process's shard of an FSDP checkpoint; import the teacher_checkpoint.pth of "
            "the run's eval/ folder, which is whole"
        )
    for pattern, kind in _STRANGERS:
        if any(re.search(pattern, key) for key in state):
            raise ValueError(f"{path}: this is {_article(_origin(config) + kind)} checkpoint; {READS}")
    eva = any(key.endswith("attn.q_bias") for key in state) and any(key.endswith("pos_embed") for key in state)
    if eva:
        raise ValueError(f"{path}: this is {_article(_origin(config) + 'EVA or BEiT')} checkpoint; {READS}")


def _refuse_unknown(state: dict[str, Tensor], path: Path, config: dict) -> None:
    if kind := config.get("architecture") or config.get("model_type"):
        raise ValueError(f"{path}: this is a {_origin(config)}{kind} checkpoint without a class token; {READS}")
    if any(key.endswith(("exp_avg", "momentum_buffer")) for key in state):
        raise ValueError(f"{path} holds the state of an optimiser and no weights; import the model's own checkpoint")
    raise ValueError(f"{path} holds no ViT with a class token, but {listed(list(state), 'other')}; {READS}")


def _article(what: str) -> str:
    return f"{'an' if what.startswith(('EVA', 'MAE', 'XCiT')) else 'a'} {what}"


def _origin(config: dict) -> str:
    return "timm " if "architecture" in config else "Hugging Face " if "model_type" in config else ""
