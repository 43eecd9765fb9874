"""A backbone in two parts: the frozen blocks, run once for each view of a photo, and the tail, run at every step.

The activations between them are kept (activations.py), so that a step costs the tail alone.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...backbones.adapter import adapter_of

_BLOCK = re.compile(r"(?:.+\.)?layers?\.\d+")
# shapes: B photos, T tokens (class token, registers, patches), D width


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return a backbone's transformer blocks, the first one first."""
    return [part for name, part in module.named_modules() if _BLOCK.fullmatch(name)]


@dataclass(frozen=True, eq=False)
class Context:
    """What a backbone hands to each of its blocks beside the tokens, such as the rotary embeddings of the grid."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Reached(Exception):
    """Signal that the forward pass has come to the tail."""


@torch.no_grad()
def run_trunk(module: PreTrainedModel, pixels: Tensor, tail_blocks: int) -> tuple[Tensor, Context]:
    """Run a backbone up to its last blocks.

    Args:
        module: A transformers model, in evaluation mode.
        pixels: (B, 3, H, W), normalised.
        tail_blocks: Blocks that are left out, 1 or more.

    Returns:
        The tokens (B, T, D) that enter the tail, and the context of its blocks.
    """
    found: list[tuple[Tensor, Context]] = []

    def stop(_block: nn.Module, args: tuple, kwargs: dict) -> None:
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        found.append((args[0] if args else kwargs["hidden_states"], Context(args[1:], rest)))
        raise _Reached

    handle = blocks_of(module)[-tail_blocks].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        module(pixel_values=pixels, **adapter_of(module).call_options)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


class Tail(nn.Module):
    """Run the last blocks of a backbone and its final norm; the parameters are the backbone's own.

    Args:
        module: The backbone.
        tail_blocks: How many blocks, 1 or more.
    """

    def __init__(self, module: PreTrainedModel, tail_blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(blocks_of(module)[-tail_blocks:])
        self.norm = adapter_of(module).final_norm(module)
        self.adapter = adapter_of(module)

    def learn(self, keys: bool) -> "Tail":
        """Unfreeze the parameters and return self; without `keys`, not those by which the last patches attend."""
        self.requires_grad_(True)
        if not keys:
            attention: Any = self.blocks[-1].attention
            for part in (_norms(self.blocks[-1])[0], attention.k_proj, attention.v_proj):
                part.requires_grad_(False)
        return self

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """Return class tokens (B, D); the last block runs for the class token alone.

        Args:
            hidden: (B, T, D), of `run_trunk`.
            context: Of `run_trunk`.
        """
        for block in self.blocks[:-1]:
            hidden = block(hidden, *context.args, **context.kwargs)
        return self.norm(class_token_block(self.blocks[-1], hidden, context))[:, 0]

    def tokens(self, hidden: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return class tokens (B, D) and patch tokens (B, N, D).

        Args:
            hidden: (B, T, D), of `run_trunk`.
            context: Of `run_trunk`.
        """
        for block in self.blocks:
            hidden = block(hidden, *context.args, **context.kwargs)
        cls, _, patches = self.adapter.split(self.norm(hidden))
        return cls, patches


class StartAverage:
    """Average a tail's weights with those that it started from: WiSE-FT (arXiv:2109.01903, section 3).

    What is learnt on few photos is partly right and partly noise; the average keeps most of the first.

    Args:
        tail: Whose weights learn; as they are now, they are the start.
        share: Of the start in the average, 0 to 1.
    """

    def __init__(self, tail: Tail, share: float):
        self._learnt = [parameter for parameter in tail.parameters() if parameter.requires_grad]
        self._start = [parameter.detach().clone() for parameter in self._learnt]
        self.share = share

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the tail, and its own weights back afterwards, to the bit.

        Yields:
            Nothing.
        """
        own = [parameter.detach().clone() for parameter in self._learnt]
        with torch.no_grad():
            for parameter, start in zip(self._learnt, self._start, strict=True):
                parameter.lerp_(start, self.share)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._learnt, own, strict=True):
                    parameter.copy_(value)


def class_token_block(block: Any, hidden: Tensor, context: Context) -> Tensor:
    """Run a block for the class token alone: one query, one row of the MLP, and no token's key or value.

    q . (W x) = (W^T q) . x, and the values' weighted mean is the tokens' weighted mean times W. So the class token's
    query goes to the tokens, and not the tokens to their keys: the projections of all T tokens, most of the block's
    work, become those of H rows. Keys that rotary embeddings turn are computed.

    Args:
        block: A block of any family of `backbones.adapter.ADAPTERS`.
        hidden: (B, T, D).
        context: Of the forward pass.

    Returns:
        (B, 1, D), what the whole block gives for its first token.
    """
    attention, cls = block.attention, hidden[:, :1]
    norm1, norm2 = _norms(block)
    normed = norm1(hidden)
    heads, width = attention.config.num_attention_heads, attention.head_dim
    query = attention.q_proj(normed[:, 0]).unflatten(1, (heads, width)) * attention.scaling
    shares = _scores(attention.k_proj, query, normed, context).softmax(dim=-1)  # (B, H, T)
    attended = _per_head(attention.v_proj, shares @ normed).flatten(1)
    cls = _dropped(block, _scaled(block, "layer_scale1", attention.o_proj(attended[:, None]))) + cls
    return _dropped(block, _scaled(block, "layer_scale2", block.mlp(norm2(cls)))) + cls


def _scores(project: nn.Linear, query: Tensor, tokens: Tensor, context: Context) -> Tensor:
    """Return the products of queries (B, H, D / H) with the keys of tokens (B, T, D), up to a constant: (B, H, T)."""
    rotary = context.kwargs.get("position_embeddings")
    if rotary is not None:
        keys = _rotated(project(tokens).unflatten(2, query.shape[1:]).transpose(1, 2), *rotary)
        return (keys @ query[..., None])[..., 0]
    # without the bias, which adds the same to all tokens
    weight = project.weight.unflatten(0, query.shape[1:])
    return torch.einsum("bhe,hed->bhd", query, weight) @ tokens.transpose(1, 2)


def _per_head(project: nn.Linear, rows: Tensor) -> Tensor:
    """Apply each head's part of a projection to a row of its own: (B, H, D) -> (B, H, D / H)."""
    heads = rows.shape[1]
    found = torch.einsum("bhd,hed->bhe", rows, project.weight.unflatten(0, (heads, -1)))
    return found if project.bias is None else found + project.bias.unflatten(0, (heads, -1))


def _norms(block: Any) -> tuple[nn.Module, nn.Module]:
    """Return the norms before attention and MLP."""
    return (block.norm1, block.norm2) if hasattr(block, "norm1") else (block.layernorm_before, block.layernorm_after)


def _rotated(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embeddings to the patches' keys (B, H, T, D / H); the class token has none."""
    prefix = keys.shape[2] - cos.shape[-2]
    patches = keys[:, :, prefix:]
    left, right = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat([-right, left], dim=-1) * sin
    return torch.cat([keys[:, :, :prefix], turned.to(keys.dtype)], dim=2)


def _scaled(block: Any, name: str, rows: Tensor) -> Tensor:
    return getattr(block, name)(rows) if hasattr(block, name) else rows


def _dropped(block: Any, rows: Tensor) -> Tensor:
    return block.drop_path(rows) if hasattr(block, "drop_path") else rows
