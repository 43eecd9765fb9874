"""Measure any backbone by k-NN on class folders, outside of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import resolve
from ..engine.devices import choose_device
from ..io.images import load_image
from .data import PhotoSet, scan
from .evaluate import BATCH, centre
from .metrics import effective_rank, knn_hits
from .network import Start, open_folder, tokens

Progress = Callable[[int, int], None]  # photos done, of how many


@torch.inference_mode()
def evaluate_knn(
    backbone: str, folder: Path, gallery: Path | None = None, *, device: str = "auto", size: int = 224, k: int = 10,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure a backbone (name, folder, finished run, hub id) by k-NN accuracy on a folder of class folders.

    gallery: class folders of the same names to compare with, a training split say; without it, each photo is
    classified by all the others. size: pixels of the centre that is looked at. Returns knn (0 to 1), rank (effective),
    photos, gallery, classes, backbone. Raises ValueError for folders without classes.
    """
    row, path = resolve(backbone)
    start = open_folder(path, row)
    module = start.module.eval().to(choose_device(device))
    sets = [_labelled(folder), *([_labelled(gallery)] if gallery else [])]
    total = sum(len(photos.paths) for photos in sets)
    names = sorted({name for photos in sets for name in photos.class_names})
    seen = [_embed(module, photos, start, size, lambda n, d=d: progress and progress(n + d, total))
            for photos, d in zip(sets, (0, len(sets[0].paths)), strict=False)]  # fmt: skip
    labels = [torch.tensor([names.index(p.class_names[i]) for i in p.labels]) for p in sets]
    hits = knn_hits(seen[-1], labels[-1], seen[0], labels[0], k, leave_one_out=gallery is None)
    return {"backbone": row.name, "knn": float(hits.double().mean()), "rank": effective_rank(seen[0]),
            "photos": len(hits), "gallery": len(seen[-1]), "classes": len(names)}  # fmt: skip


def _labelled(folder: Path) -> PhotoSet:
    photos = scan(folder)
    if photos.labels is None:
        raise ValueError(f"k-NN needs every photo of {folder} in one of two or more class folders")
    return photos


def _embed(module: nn.Module, photos: PhotoSet, start: Start, size: int, done: Callable[[int], Any]) -> Tensor:
    """Return the CLS tokens (n, D) of the photos' centres, on the CPU."""
    device = next(module.parameters()).device
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (start.mean, start.std))
    rows = []
    for i in range(0, len(photos.paths), BATCH):
        images = [torch.tensor(load_image(path)).permute(2, 0, 1) for path in photos.paths[i : i + BATCH]]
        pixels = torch.stack([centre(image.to(device), size) for image in images])
        rows.append(tokens(module, (pixels - mean) / std)[0].float().cpu())
        done(i + len(images))
    return torch.cat(rows)
