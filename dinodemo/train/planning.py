"""What is decided before a run, without torch: is training worth it, which settings, how much time, how many views."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..backbones import BACKBONES, Backbone, describe, find_local
from ..io.files import resource_folder

SCRATCH = "scratch"  # the backbone's name for a new network with random weights
SCRATCH_SHAPE = {"scratch_width": 192, "scratch_depth": 12, "scratch_heads": 3, "scratch_patch": 14}
MANY = 2_000  # photos from which a GPU has the time for self-distillation
_BATCH = {384: 64, 768: 48, 1024: 32, 1536: 8}  # photos a step that fit a 24 GB card, by the backbone's width
TRUNK_SHARE = 0.45  # of the budget, at least, for the activations; the rest is for steps, evaluations and the export
EVALUATION_SHARE = 0.1  # of the time
LEAST_VIEWS, MOST_VIEWS = 2, 6
MOST_ROWS = 1000  # compared with each other
# uniformity of 48 ordinary photos (one of each of 48 ImageNet classes) at 112 px; others are measured on the examples
ORDINARY = {"dinov2-small-offline": -2.64, "dinov2-small-saliency": -1.06}
ALIKE = 0.45  # uniformity below this share of ordinary photos' counts as alike
DULL = -1.5  # a network that spreads ordinary photos less than this is itself in need of training


@dataclass(frozen=True)
class Worth:
    """How alike photos look to a network, and what that says about training on them.

    Attributes:
        uniformity: log of the mean of exp(-2 d^2) over pairs of class tokens of length 1; 0: all alike, -4: spread.
        cosine: Mean cosine of different photos.
        ordinary: Uniformity of ordinary photos for the same network, None where it is not known.
    """

    uniformity: float
    cosine: float
    ordinary: float | None

    @property
    def likely(self) -> bool:
        """Return whether training is likely to help."""
        if self.ordinary is None:
            return self.uniformity > DULL
        return self.ordinary > DULL or self.uniformity > ALIKE * self.ordinary

    @property
    def sentence(self) -> str:
        """Return the finding in a sentence."""
        against = "" if self.ordinary is None else f", ordinary photos {self.ordinary:.2f}"
        numbers = f"uniformity {self.uniformity:.2f}{against}; mean cosine {self.cosine:.2f}"
        if self.ordinary is not None and self.ordinary > DULL:
            return f"Even ordinary photos look alike to this network: training is likely to help ({numbers})."
        if self.likely:
            return f"These photos look alike to this network: training is likely to help ({numbers})."
        return f"This network tells these photos apart well: training is unlikely to help ({numbers})."


def weigh(features: np.ndarray, backbone: str, ordinary: float | None = None) -> Worth:
    """Judge whether training a network on photos is worth it.

    Uniformity is that of Wang and Isola 2020 (arXiv:2005.10242, eq. 2, t = 2).

    Args:
        features: Class tokens of the photos, (n, D).
        backbone: Name of the network, by which ordinary photos' value is looked up.
        ordinary: Uniformity of ordinary photos, where the network has no stored value.

    Returns:
        The judgement, with its numbers.

    Raises:
        ValueError: There are fewer than two photos.
    """
    if len(features) < 2:
        raise ValueError(f"photos can only be compared with each other; there must be 2 or more, got {len(features)}")
    rows = np.asarray(features, np.float64)
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    uniformity = float(np.log(np.exp(-4 * (1 - cosines)).mean()))
    return Worth(uniformity, float(cosines.mean()), ORDINARY.get(backbone, ordinary))


def ordinary_photos() -> list[Path]:
    """Return the example photos: ordinary ones, to compare with for a network that is not in `ORDINARY`."""
    return sorted(resource_folder("assets").glob("*.jpg"))


def choose(
    n_images: int, backbone: str, device: str, explicit: Mapping[str, Any], distilling: bool = False
) -> dict[str, Any]:
    """Return the settings of a run that depend on the folder; those that follow from `explicit` ones respect them.

    - objective: "diet" on a processor and below 2,000 photos, unless a setting that only self-distillation has was
      asked for (`distilling`), or a start from scratch. The list below is of self-distillation; `_tail` is for the
      other objectives.
    - minutes: 10, unless a length was asked for or the objective is self-distillation, which has a number of steps.
    - crops: 224 and 8 of 98 on a GPU as in DINOv2. A CPU takes 8 x 8 patches and two small crops: a tenth of the work,
      and what tells photos of one folder apart is mostly visible at that size.
    - batch_size: what fits a 24 GB card, on a CPU 16; at most a quarter of the photos, since KoLeo and Sinkhorn compare
      the photos of a batch, and a batch of nearly all photos is always the same one.
    - steps, not epochs: 2,000 on a GPU, 300 on a CPU (from scratch ten and four times that), but at most 100 passes.
      Longer runs on few photos only teach the heads to name each photo.
    - prototypes: about two for each photo, a power of two from 256 to 65,536: more would never be anybody's nearest.
      The heads are narrower (1,024 instead of 2,048) below 10,000 photos and on a CPU: they are thrown away anyway.
    - teacher_temp 0.05 below 10,000 photos and on a CPU: with few prototypes the published 0.07 lets the targets go
      flat, a collapse in which every prototype is right for everybody. 0.07 above.
    - lr: 5e-5 at batch 64, growing with the square root of the batch. The published 1e-3 is what wrecks a trained
      backbone when its heads start from random weights. head_lr 1e-3: the heads must keep up.
    - head_warmup 0.15: until the heads say something, their gradients carry no knowledge into the backbone.
    - max_blocks: a third of the blocks below 1,000 photos, half below 10,000: early layers are general already, and
      few photos cannot improve them. thaw 0.25: from the top, so that every block starts below a settled one.
    - momentum: the teacher averages over about a tenth of the run; with the published 0.994 of 125,000 steps a teacher
      of 300 steps would still be the start.
    - gram_weight 1: patch similarities stay those of the start while the rest adapts.
    - drop_path 0.1 from scratch, where one network has to do all the regularising; none on a trained backbone, whose
      features it would disturb for the few steps there are.

    Args:
        n_images: Number of photos.
        backbone: Name, model folder, finished run, hub id, or "scratch".
        device: "auto", "cpu", "cuda" or "mps".
        explicit: Settings that were asked for.
        distilling: Whether one of them means something to self-distillation only.
    """
    from ..engine.devices import choose_device  # not above: it brings torch

    on_cpu = choose_device(device).type == "cpu"
    row = _row(backbone, explicit)
    objective = _objective(n_images, backbone, on_cpu, explicit, distilling)
    if objective != "dino":
        return _tail(n_images, objective, row, explicit)
    scratch = backbone == SCRATCH
    batch = explicit.get("batch_size") or _batch(n_images, row.width, on_cpu)
    small = n_images < 10_000 or on_cpu
    length = _length(n_images, batch * explicit.get("accumulate", 1), on_cpu, scratch, explicit)
    steps = length["steps"] or max(1, round(explicit.get("epochs", 1) * n_images / batch))
    chosen = {
        **length,
        **_crops(row.patch_size, on_cpu),
        "batch_size": batch,
        "prototypes": min(max(256, 1 << (2 * n_images - 1).bit_length()), 4096 if on_cpu else 65_536),
        "head_hidden": 1024 if small else 2048,
        "teacher_temp": 0.05 if small else 0.07,
        "momentum_start": min(max(1 - 10 / steps, 0.9), 0.9995),
    }
    return chosen | (_from_scratch(batch) if scratch else _continued(n_images, batch, row.depth))


def _objective(n_images: int, backbone: str, on_cpu: bool, explicit: Mapping[str, Any], distilling: bool) -> str:
    if "objective" in explicit:
        return explicit["objective"]
    if backbone == SCRATCH or distilling:
        return "dino"
    return "diet" if on_cpu or n_images < MANY else "dino"


def _tail(n_images: int, objective: str, row: Backbone, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run on cached activations.

    - crops of 16 x 16 patches, as a backbone is used; a run whose time does not suffice for them takes 8 x 8.
    - the photos measured: a tenth, but 64 where that is no more than a fifth; of few up to half, so that there are 8.
    - lr, epochs and start_share of "diet": k-NN and linear probe of a few hundred photos both rise for about 30 passes;
      longer, or at 1e-3, the linear probe falls again, less so in the average with the start.
    - tail_keys of "diet": with keys and values k-NN rose by half a point more, and masks by reference stayed as good.
    """
    timed = not (explicit.get("steps") or explicit.get("epochs") or "minutes" in explicit)
    labels = objective == "labels"
    return {
        "objective": objective,
        "minutes": 10.0 if timed else explicit.get("minutes", 0.0),
        "epochs": explicit.get("epochs", 40.0 if labels else 30.0),
        "global_size": 16 * row.patch_size,
        "eval_size": 16 * row.patch_size,
        "local_size": 4 * row.patch_size,
        "global_scale": (0.4, 1.0),
        "colour": 0.5,
        "batch_size": explicit.get("batch_size") or max(2, min(128, n_images // 2)),
        "lr": 1e-3 if labels else 3e-4,
        "head_lr": 1e-3 if labels else 1e-2,
        "start_share": 0.0 if labels else 0.2,
        "tail_keys": not labels,
        "weight_decay_start": 0.05,
        "koleo_weight": 0.0,
        "label_smoothing": 0.1 if labels else 0.3,
        "holdout": min(0.5, max(0.1, min(0.2, 64 / n_images), 9 / n_images)),
    }


def _continued(n_images: int, batch: int, depth: int) -> dict[str, Any]:
    blocks = depth // 3 if n_images < 1_000 else depth // 2 if n_images < 10_000 else 0
    return {"lr": 5e-5 * (batch / 64) ** 0.5, "gram_weight": 1.0, "max_blocks": blocks}


def _from_scratch(batch: int) -> dict[str, Any]:
    return {
        "lr": 1e-3 * (batch / 64) ** 0.5,
        "head_lr": 1e-3 * (batch / 64) ** 0.5,
        "head_warmup": 0.0,
        "thaw": 0.0,
        "layer_decay": 1.0,
        "patch_embed_scale": 1.0,
        "drop_path": 0.1,
        "weight_decay_end": 0.4,
    }


def _row(backbone: str, explicit: Mapping[str, Any]) -> Backbone:
    """Return the backbone's shape without fetching anything; one that is not here yet counts as a ViT-S/14."""
    if backbone == SCRATCH:
        width, depth, heads, patch = (explicit.get(name, default) for name, default in SCRATCH_SHAPE.items())
        return Backbone(SCRATCH, None, width, depth, heads, patch, 0, "", 0)
    if backbone in BACKBONES:
        return BACKBONES[backbone]
    folder = find_local(backbone)
    return describe(backbone, folder) if folder else BACKBONES["dinov2-small"]


def _batch(n_images: int, width: int, on_cpu: bool) -> int:
    most = 16 if on_cpu else next((b for w, b in sorted(_BATCH.items()) if width <= w), 8)
    return max(2, min(most, n_images // 4))


def _length(n_images: int, per_step: int, on_cpu: bool, scratch: bool, explicit: Mapping[str, Any]) -> dict[str, Any]:
    if explicit.get("epochs") or explicit.get("steps") or explicit.get("minutes"):
        return {"steps": explicit.get("steps", 0)}
    wanted = (300 if on_cpu else 2000) * ((4 if on_cpu else 10) if scratch else 1)
    return {"steps": max(10, min(wanted, 100 * n_images // per_step))}


def _crops(patch: int, on_cpu: bool) -> dict[str, Any]:
    if on_cpu:
        return {"global_size": 8 * patch, "local_size": 4 * patch, "n_local": 2, "eval_size": 16 * patch}
    return {
        "global_size": round(224 / patch) * patch,
        "local_size": round(97 / patch) * patch,
        "n_local": 8,
        "eval_size": round(224 / patch) * patch,
    }


@dataclass
class Clock:
    """Measure a run's time against its budget.

    Args:
        minutes: The whole run's budget of wall time; 0: none, the run's length is a number of steps.
        used: Seconds used before a resumed run was stopped.
        reserve: Seconds kept for what follows the last step: the last evaluation and the export.
    """

    minutes: float = 0.0
    used: float = 0.0
    reserve: float = 10.0
    _began: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Return the seconds of this run, without those in which it was paused or stopped."""
        return self.used + time.perf_counter() - self._began

    @property
    def left(self) -> float:
        """Return the seconds that remain for steps; infinite without a budget."""
        return self.minutes * 60 - self.reserve - self.elapsed if self.minutes else float("inf")

    def skip(self, seconds: float) -> None:
        """Do not count seconds in which the run was paused."""
        self.used -= seconds


def plan_views(photos: int, rows: float, wanted: int) -> tuple[int, int]:
    """Divide the rows that can be computed and stored into views and photos.

    Args:
        photos: In the folder.
        rows: Views of single photos that time and disk allow.
        wanted: Views of each photo, 0: as many as fit, from 2 to 6.

    Returns:
        Views of each photo, and how many photos; fewer than there are where not even two views of each fit.
    """
    views = wanted or min(MOST_VIEWS, max(LEAST_VIEWS, int(rows // photos)))
    return views, max(1, min(photos, int(rows // views)))
