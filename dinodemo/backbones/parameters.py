"""One name for each parameter of a ViT, whoever wrote it, and parameters handed out one by one, so none is lost."""

import re

import torch
from torch import Tensor

from .nesting import ignored, is_ignorable, listed

# the names of Meta's code are the common ones; beside them those of timm and of Hugging Face, older and newer
_ROOT = {
    "storage_tokens": "register_tokens",
    "reg_token": "register_tokens",
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "layernorm": "norm",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.patch_embeddings": "patch_embed.proj",
}
_IN_BLOCK = {
    "gamma_1": "ls1.gamma",
    "gamma_2": "ls2.gamma",
    "attn.q_bias": "attn.q.bias",
    "attn.v_bias": "attn.v.bias",
    "mlp.fc1_g": "mlp.w1",
    "mlp.fc1_x": "mlp.w2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
    "mlp.gate_proj": "mlp.w1",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
# blocks.N, or blocks.M.N where Meta's training cut the network into chunks
_BLOCK = re.compile(r"^(?:blocks\.(?:\d+\.)?|(?:encoder\.|model\.)?layers?\.)(\d{1,4})\.(.+)$")
_LEAF = re.compile(r"^(.+)\.(weight|bias)$")


def common_name(key: str) -> str:
    """Return the name that a parameter has in Meta's code, whichever of the known layouts its own is of."""
    block = _BLOCK.match(key)
    names, rest = (_IN_BLOCK, block[2]) if block else (_ROOT, key)
    leaf = _LEAF.match(rest)
    rest = f"{names.get(leaf[1], leaf[1])}.{leaf[2]}" if leaf and rest not in names else names.get(rest, rest)
    return f"blocks.{block[1]}.{rest}" if block else rest


class Parameters:
    """Hand out the tensors of a state dict by their common names, as float32; `finish` tells what was wrong."""

    def __init__(self, state: dict[str, Tensor]):
        self._own_name: dict[str, str] = {}
        self._left: dict[str, Tensor] = {}
        self._missing: list[str] = []
        self._wrong: list[str] = []
        self._unsound: list[str] = []
        self.kinds: set[str] = set()  # of numbers, as the weights had them
        for key, tensor in state.items():
            name = common_name(key)
            if name in self._left:
                raise ValueError(f"{key} and {self._own_name[name]} are the same parameter; save one of them")
            self._own_name[name], self._left[name] = key, tensor
        found = [int(name.split(".")[1]) for name in self._left if re.match(r"blocks\.\d+\.", name)]
        self.depth = max(found, default=-1) + 1

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape; () where it is missing."""
        return tuple(self._left[name].shape) if name in self._left else ()

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a parameter and mark it as used; a missing or misshapen one is noted, and zeros stand for it."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            self._missing.append(self._expected(name))
            return torch.zeros(shape)
        dense = tensor.is_floating_point() and tensor.layout is torch.strided
        if tuple(tensor.shape) != shape or not dense:
            kind = "" if dense else f" of {f'{tensor.layout} {tensor.dtype}'.replace('torch.', '')}"
            self._wrong.append(f"{self._own_name[name]} is {tuple(tensor.shape)}{kind}, expected {shape} of floats")
            return torch.zeros(shape)
        if name != "rope_embed.periods":  # Meta's code keeps these in another precision
            self.kinds.add(str(tensor.dtype).removeprefix("torch."))
        tensor = tensor.to(torch.float32)
        if not torch.isfinite(tensor).all():
            self._unsound.append(self._own_name[name])
        return tensor

    def _expected(self, name: str) -> str:
        """Return the key that a missing parameter would have: as the other blocks have it, else the common name."""
        block = _BLOCK.match(name)
        if not block:
            return name
        for index in range(self.depth):
            own = self._own_name.get(f"blocks.{index}.{block[2]}")
            if own and (found := _BLOCK.match(own)):
                return f"{own[: found.start(1)]}{block[1]}{own[found.end(1) :]}"
        return name

    def drop(self, name: str) -> bool:
        """Leave a parameter out for good; tells whether it was there."""
        return self._left.pop(name, None) is not None

    def finish(self, source: object) -> list[str]:
        """Return a note on the keys that were left out; raises ValueError for all that is missing or unknown."""
        left = [self._own_name[name] for name in self._left]
        unknown = [key for key in left if not is_ignorable(key)]
        found = [listed(keys, what) for keys, what in ((self._missing, "missing"), (unknown, "unknown")) if keys]
        found += [f"{len(self._wrong)} of the wrong shape ({'; '.join(self._wrong[:5])})"] if self._wrong else []
        if found:
            raise ValueError(
                f"{source} cannot be converted: {', '.join(found)}; it is cut down, or another architecture"
            )
        if self._unsound:
            raise ValueError(
                f"{source} holds numbers that are not finite (NaN or infinity) in "
                f"{listed(self._unsound, 'spoilt')}; take an earlier checkpoint"
            )
        return [ignored(left)] if left else []
