"""Measure a backbone on fixed photos of the folder: the teacher of a run, or any backbone on any folder."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ..backbones import resolve
from ..engine.devices import choose_device
from ..io.images import load_image
from . import distributed
from .augment import MultiCrop
from .config import FinetuneConfig
from .data import PhotoCache, Split, scan
from .metrics import effective_rank, entropies, knn_hits, mean_cosine, patch_drift, recall_hits
from .network import StartingBackbone, autocast, load_folder, tokens

log = logging.getLogger(__package__)
SNAPSHOT_PHOTOS = 3
DRIFT_PHOTOS = 32  # whose patch similarities are compared with the start
BATCH = 32
Progress = Callable[[int, int], None]  # photos done, of how many


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A teacher's tokens of the first photos (n, h, w, D) and its CLS token's attention (n, h, w)."""

    patches: Tensor
    attention: Tensor  # of the last layer, mean over heads


def choose_measure(parts: Split, config: FinetuneConfig) -> str:
    """Return what decides, "knn" or "crop_recall".

    Args:
        parts: Whose labels are present or not.
        config: Gives the measure that was asked for.

    Raises:
        ValueError: The measure needs classes and there are none.
    """
    labelled = parts.labels is not None
    measure = ("knn" if labelled else "crop_recall") if config.measure == "auto" else config.measure
    if measure == "knn" and not labelled:
        raise ValueError('measure is "knn", but not every photo lies in one of two or more class folders')
    return measure


def _measurable(cache: PhotoCache, indices: list[int]) -> list[int]:
    """Return the readable photos of `indices`; raises RuntimeError when there are none."""
    found = cache.readable(indices)
    if not found:
        why = cache.problems[0][1]
        raise RuntimeError(f"none of the {len(indices)} photos to measure can be read; the first: {why}")
    return found


class LastAttention(TorchFunctionMode):
    """Record the query and key of a network's last attention, whatever the network calls its parts."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is scaled_dot_product_attention:
            self.query, self.key = args[:2]  # each (B, heads, T, head_dim)
        return function(*args, **(kwargs or {}))

    def of_cls(self) -> Tensor:
        """Return the CLS token's attention to all tokens (B, T) float32, mean over heads."""
        logits = self.query[:, :, :1].float() @ self.key.float().transpose(2, 3) * self.query.shape[-1] ** -0.5
        return logits.softmax(dim=-1).mean(dim=1)[:, 0]


class Evaluator:
    """Measure a teacher on the same photos every time. On several ranks, each measures its share of them.

    Args:
        cache: Of the photos.
        parts: Which of them are measured.
        config: Of the run.
        mean: What the network expects, RGB, for values from 0 to 1.
        std: The same.
        device: That the teacher runs on.

    Raises:
        RuntimeError: None of the photos to measure can be read.
    """

    def __init__(
        self, cache: PhotoCache, parts: Split, config: FinetuneConfig, mean: tuple, std: tuple, device: torch.device
    ):
        self.cache, self.split, self.config, self.device = cache, parts, config, device
        self.measure = choose_measure(parts, config)
        step = max(1, len(parts.training) // (4 * config.eval_images))  # bounds the time of an evaluation
        self.gallery = _measurable(cache, parts.training[::step])
        self.queries = _measurable(cache, parts.queries)
        self._mean, self._std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))
        self._crop = MultiCrop(
            n_global=0,
            n_local=1,
            local_size=config.local_size,
            local_scale=config.local_scale,
            mean=mean,
            std=std,
            flip=False,
            colour=0.0,
            blur=False,
        )
        self._start_patches = torch.empty(0)  # (n, N, D), from `remember_start`
        self.snapshot: Snapshot | None = None  # of the last evaluation

    @property
    def where(self) -> str:
        """Return the measured photos in words."""
        return f"{len(self.queries)} {'held-out' if self.split.held_out else 'of the training'} photos"

    @torch.inference_mode()
    def remember_start(self, backbone: nn.Module) -> None:
        """Keep the starting backbone's patches, from which drift is measured."""
        self._start_patches = self._look(backbone.eval())[0]

    @torch.no_grad()  # not inference_mode, whose tensors a sharded network could not use outside of it
    def __call__(
        self, backbone: nn.Module, head: nn.Module, heartbeat: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, float], Tensor]:
        """Measure a teacher.

        Args:
            backbone: Of the teacher.
            head: Its DINO head.
            heartbeat: Called after every batch; may raise to end the evaluation.

        Returns:
            The metrics, and the deciding measure's hits (Q,) bool. Metrics: knn and crop_recall (0 to 1), rank
            (effective), entropy and mean_entropy (shares of log K), centre_norm (of the mean logits), mean_cosine
            (between different photos), drift (of patch similarities).
        """
        cls = self._features(backbone, self.queries, heartbeat)
        crops = self._features(backbone, self.queries, heartbeat, cropped=True)
        hits = {"crop_recall": recall_hits(cls, crops)}
        if self.split.labels is not None:
            hits["knn"] = self._knn(backbone, cls, self.split.labels, heartbeat)
        logits = head(cls.to(self.device)).float().cpu()
        entropy, mean_entropy = entropies(logits, self.config.teacher_temp)
        patches, attention = self._look(backbone)
        square = (round(patches.shape[1] ** 0.5),) * 2
        self.snapshot = Snapshot(*(seen[:SNAPSHOT_PHOTOS].unflatten(1, square) for seen in (patches, attention)))
        metrics = {name: float(values.double().mean()) for name, values in hits.items()}
        metrics |= {
            "rank": effective_rank(cls),
            "entropy": entropy,
            "mean_entropy": mean_entropy,
            "centre_norm": float(logits.mean(dim=0).norm()),
            "mean_cosine": mean_cosine(cls),
            "drift": patch_drift(patches, self._start_patches),
        }
        return metrics, hits[self.measure]

    def _knn(self, backbone: nn.Module, cls: Tensor, labels: Tensor, heartbeat: Callable[[], None]) -> Tensor:
        """Classify queries by the training photos; where nothing is held out, each by all the others."""
        if self.split.held_out:
            gallery = self._features(backbone, self.gallery, heartbeat)
            return knn_hits(gallery, labels[self.gallery], cls, labels[self.queries])
        mine = labels[self.queries]
        return knn_hits(cls, mine, cls, mine, leave_one_out=True)

    def _features(
        self, backbone: nn.Module, indices: list[int], heartbeat: Callable[[], None], cropped: bool = False
    ) -> Tensor:
        """Return the CLS tokens (n, D) float32 on the CPU of photos' centres, or of one small crop of each."""
        n = len(indices)
        mine = [indices[i] for i in distributed.share(n)]
        rows = []
        for pixels in self._pixels(mine, cropped):
            with autocast(self.device, self.config.precision):
                rows.append(tokens(backbone, pixels)[0].float())
            heartbeat()
        return distributed.join_shares(torch.cat(rows), n).cpu()

    def _pixels(self, indices: list[int], cropped: bool) -> Iterator[Tensor]:
        for start in range(0, len(indices), BATCH):
            images = self.cache.batch(indices[start : start + BATCH])
            if cropped:
                generator = torch.Generator().manual_seed(self.config.seed + indices[start])
                yield self._crop([image.to(self.device) for image in images], generator)[1][0]
            else:
                pixels = torch.stack([centre(image.to(self.device), self.config.eval_size) for image in images])
                yield (pixels - self._mean) / self._std

    def _look(self, backbone: nn.Module) -> tuple[Tensor, Tensor]:
        """Return patch tokens (n, N, D) of some photos and the CLS token's attention to them (n, N)."""
        (pixels,) = list(self._pixels(self.queries[:DRIFT_PHOTOS], cropped=False))
        eager = torch.compiler.set_stance("force_eager")  # compiled code hides its calls
        with autocast(self.device, self.config.precision), eager, LastAttention() as last:
            patches = tokens(backbone, pixels)[1].float().cpu()
        return patches, last.of_cls()[:, -patches.shape[1] :].cpu()


def centre(image: Tensor, size: int) -> Tensor:
    """Scale a picture to a short side of 8/7 size and cut out the centre.

    Args:
        image: (3, H, W) uint8.
        size: Side of the result, px.

    Returns:
        (3, size, size) float32, 0 to 1.
    """
    scale = size * 8 / 7 / min(image.shape[1:])
    target = [max(size, round(side * scale)) for side in image.shape[1:]]
    scaled = interpolate(image[None].float(), size=target, mode="bicubic", antialias=True)[0]
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return scaled[:, top : top + size, left : left + size].clamp(0, 255) / 255


@torch.inference_mode()
def evaluate_knn(
    backbone: str,
    folder: Path,
    gallery: Path | None = None,
    *,
    device: str = "auto",
    size: int = 224,
    k: int = 10,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a backbone by k-NN accuracy on a folder of class folders.

    Args:
        backbone: Name, model folder, finished run or hub id.
        folder: Photos to classify, a folder for each class.
        gallery: Class folders of the same names to compare with, a training split for example; by default each photo
            is classified by all the others.
        device: "auto", "cpu", "cuda" or "mps".
        size: Side of the centre that is measured, px.
        k: Neighbours that vote.
        progress: Called with the photos done and their total.

    Returns:
        knn (0 to 1), rank (effective), photos, gallery, classes, backbone, left_out (photos that cannot be read).

    Raises:
        ValueError: A folder has no classes or no photo that can be read, or the backbone cannot be loaded.
    """
    row, path = resolve(backbone)
    start = load_folder(path, row)
    module = start.module.eval().to(choose_device(device))
    sets = [_labelled(folder), *([_labelled(gallery)] if gallery else [])]
    total = sum(len(paths) for paths, _ in sets)
    names = sorted({name for _, classes in sets for name in classes})

    def report(before: int, done: int) -> None:
        if progress:
            progress(before + done, total)

    seen, labels, left_out = [], [], 0
    for (paths, classes), before in zip(sets, (0, len(sets[0][0])), strict=False):
        rows, kept = _embed(module, paths, start, size, partial(report, before))
        seen.append(rows)
        labels.append(torch.tensor([names.index(classes[i]) for i in kept]))
        left_out += len(paths) - len(kept)
    hits = knn_hits(seen[-1], labels[-1], seen[0], labels[0], k, leave_one_out=gallery is None)
    return {
        "backbone": row.name,
        "knn": float(hits.double().mean()),
        "rank": effective_rank(seen[0]),
        "photos": len(hits),
        "gallery": len(seen[-1]),
        "classes": len(names),
        "left_out": left_out,
    }


def _labelled(folder: Path) -> tuple[list[Path], list[str]]:
    """Return a folder's photos and the class of each."""
    photos = scan(folder)
    if photos.labels is None:
        raise ValueError(f"k-NN needs every photo of {folder} in one of two or more class folders")
    return photos.paths, [photos.class_names[i] for i in photos.labels]


def _embed(
    module: nn.Module, paths: list[Path], start: StartingBackbone, size: int, done: Callable[[int], Any]
) -> tuple[Tensor, list[int]]:
    """Return the CLS tokens (n, D) of the photos' centres, on the CPU, and which of `paths` they are of."""
    device = next(module.parameters()).device
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (start.mean, start.std))
    rows, kept = [], []
    for i in range(0, len(paths), BATCH):
        images = []
        for j, path in enumerate(paths[i : i + BATCH], i):
            try:
                images.append(torch.tensor(load_image(path)).permute(2, 0, 1))
            except ValueError as error:
                log.warning("%s is left out: %s", path, error)
            else:
                kept.append(j)
        if images:
            pixels = torch.stack([centre(image.to(device), size) for image in images])
            rows.append(tokens(module, (pixels - mean) / std)[0].float().cpu())
        done(min(i + BATCH, len(paths)))
    if not rows:
        raise ValueError(f"none of the {len(paths)} photos in {paths[0].parent.parent} can be read")
    return torch.cat(rows), kept
