"""Run a transformers ViT: tokens out of any layer, and only those attention rows that are asked for."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel, PreTrainedModel
from transformers.activations import GELUActivation
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.utils import logging as transformers_logging

from ..io.images import IMAGENET_MEAN, IMAGENET_STD
from .adapter import adapter_for
from .registry import Backbone

ATTENTION_NAME = "sdpa_with_rows"
_UNUSED_KEYS = ("pooler.", "mask_token")  # parameters that features do not depend on


class AttentionRows:
    """Collect softmax rows of chosen query tokens, one entry per layer, while the network runs.

    Every layer still goes through SDPA; beside it, q_rows @ k^T of a few rows costs O(N) instead of the N x N matrix.
    """

    def __init__(self, tokens: Tensor):
        self.tokens = tokens  # (r,) indices into the token sequence
        self.layers: list[Tensor] = []  # a layer: (B, heads, r, tokens) float32

    def record(self, query: Tensor, key: Tensor, scaling: float) -> None:
        rows = query[:, :, self.tokens].float()  # [B, heads, r, head_dim]
        logits = rows @ key.float().transpose(2, 3) * scaling
        self.layers.append(logits.softmax(dim=-1))


def _sdpa_with_rows(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, attention_rows=None, **kwargs
):
    """Attend as transformers' attention functions do: (B, heads, T, head_dim) in, (B, T, heads, head_dim) out."""
    if attention_rows is not None:
        attention_rows.record(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, _sdpa_with_rows)
AttentionMaskInterface.register(ATTENTION_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@dataclass(frozen=True)
class Tokens:
    """The network's output for a batch. T tokens: CLS, R registers, then patches row by row."""

    layers: dict[int, Tensor]  # layer (0 to depth-1) -> (B, T, D) after the final norm
    rows: Tensor | None  # (B, L, heads, r, T) float32 attention rows
    norms: Tensor  # (B, T) float32 L2 norms of the last layer's tokens before the final norm, which would level them


class VisionTransformer:
    """Wrap a transformers model: uint8 pictures in, tokens and attention rows out. Not thread-safe by itself.

    Args:
        backbone: The model's row.
        folder: With its files.
        device: That it runs on.
        dtype: Of weights and activations.

    Raises:
        ValueError: The files are damaged or do not fit the configuration.
    """

    backend = "torch"

    def __init__(self, backbone: Backbone, folder: Path, device: torch.device, dtype: torch.dtype):
        self.backbone, self.folder, self.device, self.dtype = backbone, folder, device, dtype
        self.module = load_module(backbone.name, folder)
        self.module.to(device=device, dtype=dtype)  # type: ignore[call-arg]  # transformers' wrapper hides its arguments
        mean, std = read_normalisation(folder)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self.adapter = adapter_for(self.module.config.to_dict())
        self._check()

    @property
    def last_layer(self) -> int:
        return self.backbone.depth - 1

    @torch.inference_mode()
    def __call__(self, images: Tensor, layers: tuple[int, ...] = (), row_tokens: tuple[int, ...] = ()) -> Tokens:
        """Return the tokens of a batch.

        Args:
            images: (B, H, W, 3) uint8 RGB, whole patches.
            layers: Whose tokens are wanted besides the last one's.
            row_tokens: Query tokens whose attention rows are wanted, of all layers (0 is CLS).
        """
        pixels = self._pixels(images, self.dtype)
        recorder = AttentionRows(torch.tensor(row_tokens, device=self.device)) if row_tokens else None
        return self.run_module(self.module, pixels, layers, recorder)

    def run_module(
        self, module: nn.Module, pixels: Tensor, layers: tuple[int, ...], recorder: AttentionRows | None
    ) -> Tokens:
        """Return the tokens of the module itself, or of a copy of it.

        Args:
            module: To run.
            pixels: (B, 3, H, W), normalised.
            layers: Whose tokens are wanted besides the last one's.
            recorder: Of attention rows, None where none are wanted.
        """
        options = dict(self.adapter.call_options)
        if recorder:
            options["attention_rows"] = recorder
        earlier = [i for i in layers if i != self.last_layer]
        norms: list[Tensor] = []
        final_norm = self.adapter.final_norm(module)
        watch = final_norm.register_forward_pre_hook(lambda _, x: norms.append(x[0].float().norm(dim=-1)))
        try:
            output = module(pixel_values=pixels, output_hidden_states=bool(earlier), **options)
        finally:
            watch.remove()
        tokens = {self.last_layer: output.last_hidden_state}
        for layer in earlier:  # hidden_states[0] is the embedding
            tokens[layer] = final_norm(output.hidden_states[layer + 1])
        rows = torch.stack(recorder.layers, dim=1) if recorder else None  # [B, L, heads, r, T]
        return Tokens(tokens, rows, norms[0])

    def _pixels(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalise pictures (B, H, W, 3) uint8 to (B, 3, H, W)."""
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous().float()
        return pixels.div_(255).sub_(self._mean).div_(self._std).to(dtype)

    def float_module(self) -> nn.Module:
        """Return the module in float32: itself, or a copy loaded anew where it runs in another format."""
        return self.module if self.dtype == torch.float32 else load_module(self.backbone.name, self.folder)

    def _check(self) -> None:
        """Run two by three patches, so that a model of another kind is refused when it is loaded, not later."""
        patch, expected = self.backbone.patch_size, self.adapter.count + 6
        asked = (self.adapter.cls_index,)
        try:
            tokens = self(torch.zeros(1, 2 * patch, 3 * patch, 3, dtype=torch.uint8), row_tokens=asked)
            found = tokens.layers[self.last_layer].shape
        except (TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.backbone.name} cannot be used: not a ViT with patch tokens ({error})") from error
        depth = 0 if tokens.rows is None else tokens.rows.shape[1]
        if found != (1, expected, self.backbone.width) or depth != self.backbone.depth:
            raise ValueError(f"{self.backbone.name} cannot be used: {expected} tokens expected, shape {tuple(found)}")


class InPlaceGELU(nn.Module):
    """Apply GELU into its own input where no gradient needs it: the widest map of a block is not held twice."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def _replace_gelu(module: nn.Module) -> None:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, GELUActivation):
                setattr(parent, name, InPlaceGELU())


def load_module(name: str, folder: Path) -> PreTrainedModel:
    """Load a model folder with transformers: safetensors only, no remote code, nothing missing.

    Args:
        name: Of the backbone, for messages.
        folder: With config.json and safetensors.

    Returns:
        The model in float32 on the CPU.

    Raises:
        ValueError: The files are damaged or do not fit the configuration.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    transformers_logging.disable_progress_bar()
    try:
        module, report = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation=ATTENTION_NAME,
            output_loading_info=True,
            **adapter_for(config).load_options,
        )
    except SafetensorError as error:
        raise ValueError(f"the weights of {name} in {folder} are damaged ({error}); fetch them again") from error
    except Exception as error:  # a stranger's configuration can make transformers raise anything
        reason = " ".join(str(error).split())[:500]
        raise ValueError(f"the weights of {name} in {folder} cannot be loaded: {reason}") from error
    missing = [key for key in report["missing_keys"] if not any(unused in key for unused in _UNUSED_KEYS)]
    if missing:
        raise ValueError(f"the weights of {name} lack {len(missing)} parameters, e.g. {missing[0]}; fetch them again")
    broken = [key for key, value in module.named_parameters() if not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"the weights of {name} in {folder} are not finite in {len(broken)} parameters, e.g. "
            f"{broken[0]}; fetch them again, or export them from an earlier checkpoint"
        )
    _replace_gelu(module)
    return module.eval().requires_grad_(False)


def read_normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation per channel (RGB) from preprocessor_config.json; ImageNet's where it names none.

    Raises:
        ValueError: The file is damaged or its numbers are none; the message names it.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from error
    values = [
        _channels(path, key, config.get(key)) or usual
        for key, usual in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD))
    ]
    if min(values[1]) <= 0:
        raise ValueError(f"{path} says image_std = {values[1]}; expected numbers above 0")
    return values[0], values[1]


def _channels(path: Path, key: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) and abs(v) < 1e3 for v in value):
        return tuple(float(v) for v in value)
    raise ValueError(f"{path} says {key} = {value!r}; expected three numbers, one a channel")
