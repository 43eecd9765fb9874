"""What a head reads of a picture: tokens of some layers side by side, after the final norm or before it."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...io.images import IMAGENET_MEAN, IMAGENET_STD, Photo, network_input

if TYPE_CHECKING:
    from ...engine.engine import Engine

Tokens = tuple[np.ndarray, np.ndarray]  # patches (h, w, L * D), CLS (L * D,), float32


def read_tokens(
    engine: "Engine", photo: Photo, layers: tuple[int, ...], resolution: int, normed: bool = True
) -> Tokens:
    """Return patches (h, w, L * D) and CLS tokens (L * D,) of some layers, float32.

    normed: after the final norm, as the engine has them; else as they leave their layer, which is what the published
    depth heads were trained on.
    """
    found = engine.layers(photo, layers, resolution) if normed else _unnormed(engine, photo, layers, resolution)
    return np.concatenate([p for _, p in found], axis=-1), np.concatenate([c for c, _ in found])


def flipped(photo: Photo) -> Photo:
    """Return the photo mirrored left to right."""
    return Photo(np.ascontiguousarray(photo.rgb[:, ::-1]), photo.name)


@torch.inference_mode()
def _unnormed(engine: "Engine", photo: Photo, layers: tuple[int, ...], resolution: int) -> list[Tokens]:
    """Run embeddings and encoder without the final norm: (cls (D,), patches (h, w, D)) a layer."""
    model: Any = engine.model  # of a class of transformers
    row = engine.backbone
    if not (hasattr(model, "embeddings") and hasattr(model, "encoder") and hasattr(model.encoder, "layer")):
        raise ValueError(f"{row.name} is no DINOv2 model, which the published heads need; open one of dinov2-*")
    rgb = network_input(photo.rgb, resolution, row.patch_size)
    weight = next(model.parameters())
    pixels = torch.tensor(rgb, device=weight.device).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v, device=weight.device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    hidden, kept = model.embeddings(((pixels - mean) / std).to(weight.dtype)), {}
    for i, layer in enumerate(model.encoder.layer):
        hidden = layer(hidden)
        if i in layers:
            kept[i] = hidden[0].float().cpu().numpy()
    h, w = rgb.shape[0] // row.patch_size, rgb.shape[1] // row.patch_size
    split = {i: engine.adapter.split(tokens) for i, tokens in kept.items()}
    return [(split[i][0], split[i][2].reshape(h, w, -1)) for i in layers]
