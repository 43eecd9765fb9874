"""Measure a tail on the cached activations of the photos' centres."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..config import FinetuneConfig
from ..data import Split
from ..evaluate import DRIFT_PHOTOS, SNAPSHOT_PHOTOS, LastAttention, Snapshot, choose_measure
from ..metrics import effective_rank, knn_hits, mean_cosine, patch_drift, recall_hits
from ..planning import ORDINARY, Worth, ordinary_photos, weigh
from .activations import Trunk
from .blocks import Tail

BATCH = 64


class TailEvaluator:
    """Measure a tail on the same photos every time; the first time is of the start.

    Args:
        trunk: With the photos' activations.
        parts: Which photos are trained on, and which measured.
        config: Gives the measure and the most photos.
        tail: To measure.
        backbone: Name of the start.
        device: That the tail runs on.
    """

    def __init__(
        self, trunk: Trunk, parts: Split, config: FinetuneConfig, tail: Tail, backbone: str, device: torch.device
    ):
        self.trunk, self.parts, self.tail, self.backbone, self.device = trunk, parts, tail, backbone, device
        self.measure = choose_measure(parts, config)
        self.most = config.eval_images
        self.worth: Worth | None = None  # of the start
        self.snapshot: Snapshot | None = None  # of the last evaluation
        self._start_patches: Tensor | None = None
        self.queries = self.gallery = np.zeros(0, int)  # rows of the trunk

    @property
    def where(self) -> str:
        """Return the measured photos in words."""
        return f"{len(self.queries)} {'held-out' if self.parts.held_out else 'of the training'} photos"

    @torch.no_grad()
    def __call__(self, heartbeat: Callable[[], None] = lambda: None) -> tuple[dict[str, float], Tensor]:
        """Return metrics and the deciding measure's hits (Q,) bool; `heartbeat` is called after every batch."""
        if not len(self.queries):
            self._choose_rows()
        cls, metrics, hits = self._cls(self.queries, 0, heartbeat), {}, {}
        if (self.trunk.rows.views_of[self.queries] > 1).all():
            hits["crop_recall"] = recall_hits(cls, self._cls(self.queries, 1, heartbeat))
        gallery = self._cls(self.gallery, 0, heartbeat)
        if self.parts.labels is not None:
            labels = [self.parts.labels[[self.trunk.order[i] for i in rows]] for rows in (self.gallery, self.queries)]
            alone = not self.parts.held_out
            hits["knn"] = knn_hits(gallery, labels[0], cls, labels[1], leave_one_out=alone)
        if self.measure not in hits:
            raise RuntimeError("there was no time for a second view of each photo; give the run more minutes")
        patches, attention = self._look()
        if self._start_patches is None:
            self._start_patches = patches
            self.worth = weigh(gallery.numpy(), self.backbone, self._ordinary())
        metrics = {name: float(found.double().mean()) for name, found in hits.items()}
        metrics |= {
            "rank": effective_rank(cls),
            "mean_cosine": mean_cosine(cls),
            "uniformity": weigh(gallery.numpy(), self.backbone).uniformity,
            "drift": patch_drift(patches, self._start_patches),
        }
        square = (round(patches.shape[1] ** 0.5),) * 2
        self.snapshot = Snapshot(*(seen[:SNAPSHOT_PHOTOS].unflatten(1, square) for seen in (patches, attention)))
        return metrics, hits[self.measure]

    def _ordinary(self) -> float | None:
        """Return the uniformity of ordinary photos for the start, where it is not stored."""
        photos = ordinary_photos()
        if self.backbone in ORDINARY or len(photos) < 2:
            return None
        cls = self.tail(self.trunk.look_at(photos).to(self.device), self.trunk.context)
        return weigh(cls.float().cpu().numpy(), self.backbone).uniformity

    def _choose_rows(self) -> None:
        """Choose the rows that are compared: those that were filled and can be read."""
        usable = self.trunk.readable & (self.trunk.rows.views_of > 0)
        row_of = {photo: row for row, photo in enumerate(self.trunk.order)}
        twice = self.trunk.rows.views_of > 1
        queries = [row_of[i] for i in self.parts.queries if i in row_of and usable[row_of[i]]]
        self.queries = np.array([row for row in queries if twice[row]] or queries, int)
        gallery = [row_of[i] for i in self.parts.training if i in row_of and usable[row_of[i]]]
        step = max(1, len(gallery) // (4 * self.most))
        self.gallery = np.array(gallery[::step], int) if self.parts.held_out else self.queries
        if not len(self.queries) or len(self.gallery) < 2:
            raise RuntimeError("too few photos could be looked at to measure anything; give the run more minutes")

    def _cls(self, rows: np.ndarray, view: int, heartbeat: Callable[[], None]) -> Tensor:
        """Return class tokens (n, D) float32 on the CPU."""
        found = []
        for i in range(0, len(rows), BATCH):
            picked = rows[i : i + BATCH]
            hidden = self.trunk.rows.get(np.full(len(picked), view), picked)
            found.append(self.tail(hidden.to(self.device), self.trunk.context).float().cpu())
            heartbeat()
        return torch.cat(found)

    def _look(self) -> tuple[Tensor, Tensor]:
        """Return patch tokens (n, N, D) of some photos and the class token's attention to them (n, N)."""
        picked = self.queries[:DRIFT_PHOTOS]
        hidden = self.trunk.rows.get(np.zeros(len(picked), int), picked).to(self.device)
        with LastAttention() as last:
            patches = self.tail.tokens(hidden, self.trunk.context)[1].float().cpu()
        return patches, last.of_cls()[:, -patches.shape[1] :].cpu()
