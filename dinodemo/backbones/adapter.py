"""One adapter a family of networks: where its tokens, layers and norms are. Engine and training ask nothing else.

A network with another layout (registers before the class token, no class token, ...) is one subclass and one line in
`ADAPTERS`.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor, nn

Array = TypeVar("Array", np.ndarray, Tensor)
_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


class BackboneAdapter:
    """The layout that all families of the table share: the class token, R registers, then patches row by row."""

    load_options: ClassVar[Mapping[str, Any]] = {}  # of transformers' from_pretrained
    takes_drop_path: ClassVar[bool] = True
    mask_options: ClassVar[Mapping[str, Any]] = {}  # of loading, for a network that is to have a mask token
    call_options: ClassVar[Mapping[str, Any]] = {}  # of each forward pass

    def __init__(self, registers: int = 0):
        self.registers = registers

    @property
    def cls_index(self) -> int:
        """Return the index of the token that stands for the picture, whose attention is drawn."""
        return 0

    @property
    def count(self) -> int:
        """Return how many tokens are no patches."""
        return 1 + self.registers

    def token_of(self, patch: int) -> int:
        """Return the index of a patch's token; patches are counted row by row."""
        return self.count + patch

    def split(self, tokens: Array, axis: int = -2) -> tuple[Array, Array, Array]:
        """Split tokens into those of the picture, the registers and the patches.

        Args:
            tokens: (..., T, D), or any shape with T along `axis`: attention rows (..., T) have it last.

        Returns:
            cls: without the axis; registers and patches: with R and N instead of T.
        """

        def part(index: int | slice) -> Array:
            where: list[int | slice] = [slice(None)] * tokens.ndim
            where[axis] = index
            return tokens[tuple(where)]

        return part(0), part(slice(1, self.count)), part(slice(self.count, None))

    def train_options(self, drop_path: float) -> dict[str, Any]:
        """Return the options with which from_pretrained loads the network for training."""
        rate = {"drop_path_rate": drop_path} if self.takes_drop_path else {}
        return {**self.load_options, **self.mask_options, **rate}

    def final_norm(self, module: nn.Module) -> nn.Module:
        """Return the norm that follows the last block."""
        return module.get_submodule("layernorm" if hasattr(module, "layernorm") else "norm")


class ViTAdapter(BackboneAdapter):
    """DINO v1, which transformers opens as a plain ViT."""

    load_options: ClassVar[Mapping[str, Any]] = {"add_pooling_layer": False}  # no part of DINO; else random weights
    takes_drop_path: ClassVar[bool] = False
    mask_options: ClassVar[Mapping[str, Any]] = {"use_mask_token": True}
    call_options: ClassVar[Mapping[str, Any]] = {"interpolate_pos_encoding": True}  # the others always do


class Dinov2Adapter(BackboneAdapter):
    """DINOv2 without registers, which transformers opens without a mask token unless asked."""

    mask_options: ClassVar[Mapping[str, Any]] = {"use_mask_token": True}


ADAPTERS: dict[str, type[BackboneAdapter]] = {  # transformers' model_type -> adapter
    "vit": ViTAdapter,
    "dinov2": Dinov2Adapter,
    "dinov2_with_registers": BackboneAdapter,
    "dinov3_vit": BackboneAdapter,
}


def adapter_for(config: Mapping[str, Any]) -> BackboneAdapter:
    """Return the adapter of a model by its config.json; families that are not known are tried as DINOv2 is laid out."""
    kind = ADAPTERS.get(str(config.get("model_type")), BackboneAdapter)
    return kind(int(config.get("num_register_tokens") or 0))


def adapter_of(module: nn.Module) -> BackboneAdapter:
    """Return the adapter of a transformers model that is loaded."""
    config: Any = module.config  # of a class of transformers, one a family
    return adapter_for(
        {"model_type": config.model_type, "num_register_tokens": getattr(config, "num_register_tokens", 0)}
    )


def layer_of(name: str, depth: int) -> int:
    """Return where a parameter sits: 0 for embeddings, 1 to depth for blocks, depth + 1 for what follows.

    Args:
        name: Of the parameter.
        depth: Blocks of the backbone.
    """
    if found := _LAYER.search(name):
        return int(found[1]) + 1
    return 0 if "embeddings" in name else depth + 1
