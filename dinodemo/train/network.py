"""Open a backbone for training: a released one, a former run, or a new one; and find one's way in its parameters."""

import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, Dinov2Config, Dinov2Model
from transformers.utils import logging as transformers_logging

from ..backbones import Backbone, describe, resolve
from ..backbones.adapter import read_normalisation
from ..io.images import IMAGENET_MEAN, IMAGENET_STD
from .config import SCRATCH, FinetuneConfig

_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
_NOT_IN_FILES = ("pooler.", "mask_token")  # parameters that published files may lack: unused, or learnt anew


@dataclass(frozen=True, eq=False)
class Start:
    """Hold the network that a run starts from. `module` is a transformers model in float32 on the CPU."""

    backbone: Backbone
    module: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def open_start(config: FinetuneConfig) -> Start:
    """Open the backbone of a configuration, downloading what is missing; from scratch, draw it from the seed.

    Raises ValueError for a backbone that is unknown, damaged or of no use here, RuntimeError when it cannot be had.
    """
    if config.backbone == SCRATCH:
        return _from_scratch(config)
    row, folder = resolve(config.backbone)
    return open_folder(folder, row, config.drop_path)


def open_folder(folder: Path, row: Backbone | None = None, drop_path: float = 0.0) -> Start:
    """Open a model folder for training; without a row, it is read out of the folder. Raises ValueError."""
    row = row or describe(folder.name, folder)
    module = _load(row.name, folder, drop_path)
    mean, std = read_normalisation(folder)
    return Start(row, module, mean, std)


def tokens(module: nn.Module, pixels: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run a backbone: pixels (B, 3, H, W), masks (B, N) bool; returns final-norm cls (B, D) and patches (B, N, D)."""
    options = {"interpolate_pos_encoding": True} if module.config.model_type == "vit" else {}
    hidden = module(pixel_values=pixels, bool_masked_pos=masks, **options).last_hidden_state
    prefix = 1 + (getattr(module.config, "num_register_tokens", 0) or 0)
    return hidden[:, 0], hidden[:, prefix:]


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the number format of a forward pass: with "auto", bfloat16 on GPUs that have it, else float32."""
    if precision == "auto":
        cuda = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if cuda else "float32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def layer_of(name: str, depth: int) -> int:
    """Return where a backbone's parameter sits: 0 for embeddings, 1 to depth for blocks, depth + 1 for what follows."""
    found = _LAYER.search(name)
    if found:
        return int(found[1]) + 1
    return 0 if "embeddings" in name else depth + 1


def _load(name: str, folder: Path, drop_path: float) -> nn.Module:
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    options: dict = {"drop_path_rate": drop_path}
    if kind == "vit":
        if drop_path:
            raise ValueError(f"drop_path {drop_path}: {name} is a DINO v1 ViT, which has none; set it to 0")
        options = {"add_pooling_layer": False, "use_mask_token": True}
    elif kind == "dinov2":
        options["use_mask_token"] = True
    transformers_logging.disable_progress_bar()
    try:
        module, report = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            attn_implementation="sdpa", output_loading_info=True, **options,
        )  # fmt: skip
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} in {folder} cannot be loaded for training: {error}") from error
    missing = [key for key in report["missing_keys"] if not any(part in key for part in _NOT_IN_FILES)]
    if missing:
        raise ValueError(f"the weights of {name} lack {len(missing)} parameters, e.g. {missing[0]}; fetch them again")
    return module


def _from_scratch(config: FinetuneConfig) -> Start:
    """Make a DINOv2 network of the configuration's shape; layer scale 1, since 1e-5 is for very deep ones."""
    config.check_patch(config.scratch_patch)
    shape = Dinov2Config(
        hidden_size=config.scratch_width, num_hidden_layers=config.scratch_depth, image_size=config.global_size,
        num_attention_heads=config.scratch_heads, patch_size=config.scratch_patch, drop_path_rate=config.drop_path,
        layerscale_value=1.0, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        module = Dinov2Model(shape)
    row = Backbone(SCRATCH, None, config.scratch_width, config.scratch_depth, config.scratch_heads,
                   config.scratch_patch, 0, "yours", 0)  # fmt: skip
    return Start(row, module, IMAGENET_MEAN, IMAGENET_STD)
