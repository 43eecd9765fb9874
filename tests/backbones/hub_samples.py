"""A small model on the hub of these tests."""

import json
from pathlib import Path

import numpy as np
from huggingface_hub import constants
from safetensors.numpy import save

from dinodemo.backbones import BACKBONES, DEFAULT

from .test_registry import VIT_CONFIG

CONFIG = json.dumps(VIT_CONFIG).encode()
WEIGHTS = save({"weight": np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8)})
FILES = {
    "config.json": CONFIG,
    "preprocessor_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "README.md": b"card",
}
SMALL, V1, GATED = (BACKBONES[name].hub_id for name in (DEFAULT, "dino-vits16", "dinov3-vits16"))


def blobs() -> list[Path]:
    return [path for path in Path(constants.HF_HUB_CACHE).glob("*/blobs/*") if path.is_file()]
