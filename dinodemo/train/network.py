"""Load a backbone for training (released, of a former run, or new) and map its parameters to layers."""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, Dinov2Config, Dinov2Model, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..backbones import Backbone, describe, resolve
from ..backbones.adapter import adapter_for, adapter_of
from ..backbones.network import read_normalisation
from ..io.images import IMAGENET_MEAN, IMAGENET_STD
from .config import SCRATCH, FinetuneConfig

_NOT_IN_FILES = ("pooler.", "mask_token")  # parameters that published files may lack: unused, or learnt from scratch


@dataclass(frozen=True, eq=False)
class StartingBackbone:
    """The network that a run starts from. `module` is a transformers model in float32 on the CPU."""

    backbone: Backbone
    module: PreTrainedModel
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_backbone(config: FinetuneConfig) -> StartingBackbone:
    """Load the backbone of a configuration, downloading what is missing; from scratch, draw it from the seed.

    Args:
        config: Gives backbone and drop_path; from scratch, also the shape and the seed.

    Returns:
        The network in float32 on the CPU.

    Raises:
        ValueError: The backbone is unknown, damaged or of no use here.
        RuntimeError: It cannot be downloaded.
    """
    if config.backbone == SCRATCH:
        return _from_scratch(config)
    row, folder = resolve(config.backbone)
    return load_folder(folder, row, config.drop_path)


def load_folder(folder: Path, row: Backbone | None = None, drop_path: float = 0.0) -> StartingBackbone:
    """Load a model folder for training.

    Args:
        folder: With config.json and safetensors.
        row: The backbone's shape; read from the folder by default.
        drop_path: Probability that a block is skipped for a photo, in training mode.

    Returns:
        The network in float32 on the CPU.

    Raises:
        ValueError: The folder cannot be loaded for training.
    """
    row = row or describe(folder.name, folder)
    module = _load(row.name, folder, drop_path)
    mean, std = read_normalisation(folder)
    return StartingBackbone(row, module, mean, std)


def tokens(module: nn.Module, pixels: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run a backbone and return its final-norm tokens.

    Args:
        module: A transformers model.
        pixels: (B, 3, H, W), normalised.
        masks: (B, N) bool, the patches replaced by the mask token.

    Returns:
        CLS tokens (B, D) and patch tokens (B, N, D).
    """
    adapter = adapter_of(module)
    hidden = module(pixel_values=pixels, bool_masked_pos=masks, **adapter.call_options).last_hidden_state
    cls, _, patches = adapter.split(hidden)
    return cls, patches


def autocast(device: torch.device, precision: str, trunk: bool = False) -> AbstractContextManager:
    """Return the autocast context of a forward pass.

    Args:
        device: On which it runs.
        precision: "float32", "bfloat16", or "auto": bfloat16 on GPUs that have it, else float32.
        trunk: The pass is of frozen blocks; then "auto" also takes bfloat16 on processors that multiply in it.
    """
    if precision == "auto":
        cuda = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        cpu = trunk and device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        precision = "bfloat16" if cuda or cpu else "float32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _load(name: str, folder: Path, drop_path: float) -> PreTrainedModel:
    adapter = adapter_for(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if drop_path and not adapter.takes_drop_path:
        raise ValueError(f"drop_path {drop_path}: {name} is a DINO v1 ViT, which has none; set it to 0")
    transformers_logging.disable_progress_bar()
    try:
        module, report = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            **adapter.train_options(drop_path),
        )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} in {folder} cannot be loaded for training: {error}") from error
    missing = [key for key in report["missing_keys"] if not any(part in key for part in _NOT_IN_FILES)]
    if missing:
        raise ValueError(f"the weights of {name} lack {len(missing)} parameters, e.g. {missing[0]}; fetch them again")
    return module


def _from_scratch(config: FinetuneConfig) -> StartingBackbone:
    """Return a DINOv2 network of the configuration's shape; layer scale 1, since 1e-5 is for very deep ones."""
    config.check_patch(config.scratch_patch)
    shape = Dinov2Config(  # type: ignore[call-arg]  # annotated without the options that every configuration takes
        hidden_size=config.scratch_width,
        num_hidden_layers=config.scratch_depth,
        image_size=config.global_size,
        num_attention_heads=config.scratch_heads,
        patch_size=config.scratch_patch,
        drop_path_rate=config.drop_path,
        layerscale_value=1.0,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        module = Dinov2Model(shape)
    row = Backbone(
        SCRATCH,
        None,
        config.scratch_width,
        config.scratch_depth,
        config.scratch_heads,
        config.scratch_patch,
        0,
        "yours",
        0,
    )
    return StartingBackbone(row, module, IMAGENET_MEAN, IMAGENET_STD)
