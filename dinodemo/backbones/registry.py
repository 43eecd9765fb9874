"""The table of backbones, and what a folder of weights has to hold."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from ..io.files import REPOSITORY, is_checkout

DEFAULT = "dinov2-small"
OFFLINE_DEFAULT = "dinov2-small-offline"
SALIENCY = "dinov2-small-saliency"
WEIGHT_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")

LIKELY = {
    "width": (1, 16_384),
    "depth": (1, 256),
    "heads": (1, 256),
    "patch": (1, 128),
    "num_register_tokens": (0, 256),
    "mlp_ratio": (0, 64),
    "intermediate_size": (0, 131_072),
    "image_size": (0, 4096),
}

DINOV3_LICENCE = "DINOv3 License (gated)"
OFFLINE_NOTICE = (
    "Offline default: a DINOv2 ViT-S/14 rebuilt from the package index, close to facebook/dinov2-small but not it. "
    "For the official weights run `dinodemo weights fetch dinov2-small` where huggingface.co can be reached."
)
NO_PREPROCESSOR = "It came without preprocessor_config.json: pictures are normalised as ImageNet's are."
SALIENCY_NOTICE = "A DINOv2 ViT-S/14 damaged by saliency tuning: a start for fine-tuning experiments, not for judging."


@dataclass(frozen=True)
class Backbone:
    """Describe one backbone: a row of the table, or a folder or hub id that was opened by hand."""

    name: str
    hub_id: str | None
    width: int
    depth: int
    heads: int
    patch_size: int
    registers: int
    licence: str
    download_mb: int
    gated: bool = False
    revision: str | None = None  # a hub commit, where the safetensors are not on the main branch
    notice: str = ""  # shown wherever the backbone is in use
    descriptor: str = "cls"  # the tokens that serve retrieval best, see tasks/retrieval/descriptor.py

    @property
    def label(self) -> str:
        """Return one line for a picker."""
        extra = f", {self.registers} registers" if self.registers else ""
        return f"{self.name} · ViT-{self.width}x{self.depth}/{self.patch_size}{extra}"


def _row(name, hub_id, shape, patch, registers, licence, mb, **extra) -> Backbone:
    width, depth, heads = shape
    return Backbone(name, hub_id, width, depth, heads, patch, registers, licence, mb, **extra)


_S, _B, _L, _G = (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1536, 40, 24)
_APACHE = "Apache-2.0"

_ROWS = [
    _row(OFFLINE_DEFAULT, None, _S, 14, 0, "Apache-2.0, MIT (wheel)", 90, notice=OFFLINE_NOTICE),
    *(
        _row(
            f"dinov2-{size}{suffix}",
            f"facebook/dinov2-{suffix[1:] + '-' if suffix else ''}{size}",
            shape,
            14,
            regs,
            _APACHE,
            mb,
        )
        for suffix, regs in (("", 0), ("-with-registers", 4))
        for size, shape, mb in (("small", _S, 88), ("base", _B, 346), ("large", _L, 1218), ("giant", _G, 4546))
    ),
    _row("dino-vits16", "facebook/dino-vits16", _S, 16, 0, _APACHE, 87, revision="refs/pr/1"),
    _row("dino-vits8", "facebook/dino-vits8", _S, 8, 0, _APACHE, 87),
    _row("dino-vitb16", "facebook/dino-vitb16", _B, 16, 0, _APACHE, 343, revision="refs/pr/7"),
    _row("dino-vitb8", "facebook/dino-vitb8", _B, 8, 0, _APACHE, 343),
    *(
        _row(f"dinov3-{s}", f"facebook/dinov3-{s}-pretrain-lvd1689m", shape, 16, 4, DINOV3_LICENCE, mb, gated=True)
        for s, shape, mb in (("vits16", _S, 86), ("vits16plus", _S, 115), ("vitb16", _B, 343), ("vitl16", _L, 1212))
    ),
    # the DINOv3 architecture, trained by Robbyant, not gated; in a pull request of each repository as safetensors
    *(
        _row(f"lingbot-{s}", f"robbyant/lingbot-vision-{hub}", shape, 16, 4, _APACHE, mb, revision="refs/pr/2")
        for s, hub, shape, mb in (("vits16", "vit-small", _S, 86), ("vitg16", "vit-giant", _G, 4538))
    ),
    _row(SALIENCY, None, _S, 14, 0, "Apache-2.0, MIT (wheel)", 90, notice=SALIENCY_NOTICE, descriptor="cls11"),
]
BACKBONES = {row.name: row for row in _ROWS}
_ROW_OF_HUB_ID = {row.hub_id: row.name for row in _ROWS if row.hub_id}


def canonical_name(name: str) -> str:
    """Return the table's name of a backbone given by its hub id; any other name as it is."""
    return _ROW_OF_HUB_ID.get(name, name)


def weights_root() -> Path:
    """Return the folder of local weights: $DINODEMO_WEIGHTS, else `weights/` of a checkout, else the user's own."""
    if own := os.environ.get("DINODEMO_WEIGHTS"):
        return Path(own).expanduser()
    return REPOSITORY / "weights" if is_checkout() else user_data_path("dinodemo") / "weights"


def is_complete(folder: Path) -> bool:
    """Return whether a folder holds a configuration and every safetensors file that its index names."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # cut off, or not an index at all
            return False
        return all((folder / shard).is_file() for shard in shards)
    return (folder / "model.safetensors").is_file()


def describe(name: str, folder: Path) -> Backbone:
    """Return the row of a model folder by its config.json.

    Args:
        name: That the row gets.
        folder: With config.json.

    Raises:
        ValueError: It is no ViT with patch tokens.
    """
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged ({error}); write or fetch it again") from error
    try:
        width, depth, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
        patch = config["patch_size"]
    except KeyError as error:
        kind = config.get("model_type", "unknown")
        raise ValueError(f"{name} is a {kind!r} model without {error}; expected a ViT with patch tokens") from error
    patch = patch[0] if isinstance(patch, list) and len(set(map(str, patch))) == 1 else patch
    _check_shape(name, config, width=width, depth=depth, heads=heads, patch=patch)
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    return Backbone(
        name=name,
        hub_id=None,
        width=width,
        depth=depth,
        heads=heads,
        patch_size=patch,
        registers=config.get("num_register_tokens", 0) or 0,
        licence="see its model card",
        download_mb=round(size / 1e6),
        notice="" if (folder / "preprocessor_config.json").is_file() else NO_PREPROCESSOR,
    )


def _check_shape(name: str, config: dict, **shape) -> None:
    """Raise ValueError for sizes that no ViT has: building one would fill the memory before anything else is wrong."""
    shape |= {
        key: config.get(key) or 0 for key in ("num_register_tokens", "mlp_ratio", "intermediate_size", "image_size")
    }
    for key, value in shape.items():
        low, high = LIKELY[key]
        values = value if key == "image_size" and isinstance(value, list) else [value]
        if not all(isinstance(v, int | float) and low <= v <= high for v in values):
            raise ValueError(f"the model {name} says {key} = {value!r}; expected a number from {low} to {high}")
    if shape["width"] % shape["heads"]:
        raise ValueError(f"the model {name} cannot share {shape['width']} features among {shape['heads']} heads")


def model_folder(folder: Path) -> Path:
    """Accept a model folder or a training run, whose model lies in export/."""
    for candidate in (folder, folder / "export"):
        if is_complete(candidate):
            return candidate
    raise ValueError(
        f"{folder} holds no complete model: expected config.json and model.safetensors in it or in its export/ "
        "folder; a checkpoint in another layout is converted by `dinodemo weights import`"
    )


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, such as "org/model"."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name)) and ".." not in name
