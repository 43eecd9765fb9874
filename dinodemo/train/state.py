"""The state of a training run: built from its settings, saved, loaded, rolled back, exported."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import distributed
from .config import FinetuneConfig
from .data import PhotoCache, PhotoSet, Split
from .evaluate import Evaluator
from .export import load_result, model_card, write_model
from .loader import BatchLoader
from .monitor import CollapseMonitor
from .network import StartingBackbone, autocast, load_folder
from .optim import Plan, make_optimizer, thaw
from .planning import EVALUATION_SHARE, Clock
from .runfolder import (
    RunFolder,
    checkpoint_path,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from .ssl import SelfDistillation

log = logging.getLogger(__package__)
METHODS = {
    "dino": "without labels (DINO, iBOT, KoLeo and a moving-average teacher; this is the teacher's backbone)",
    "diet": "without labels (each photo its own class: DIET, arXiv:2302.10260; the last blocks alone)",
    "labels": "with labels (cross-entropy on the class token; the last blocks alone)",
}


class TrainState(ABC):
    """Track how far a run is, its starting backbone and its files: what all objectives share.

    `step` counts the optimiser steps done. `evaluator`, `monitor` and `total` are set by the objective's own state.

    Args:
        config: Of the run.
        start: The backbone that the run starts from.
        photos: All photos of the folder.
        cache: Of these photos.
        device: Of this rank.
        checkpoints: Folder of the checkpoints.
        folder: None on every rank but the first, which alone writes files.
        clock: Of the budget of time.
    """

    evaluator: Any  # with `where`, `measure` and `snapshot`
    monitor: CollapseMonitor
    total: int

    def __init__(
        self,
        config: FinetuneConfig,
        start: StartingBackbone,
        photos: PhotoSet,
        cache: PhotoCache,
        device: torch.device,
        checkpoints: Path,
        folder: RunFolder | None,
        clock: Clock,
    ):
        self.config, self.start, self.photos, self.device, self.folder = config, start, photos, device, folder
        self.cache, self.checkpoints, self.clock = cache, checkpoints, clock
        self.step, self.lr_factor = 0, 1.0
        self.evaluated = -1  # step of the last evaluation
        self.seconds: float | None = None  # of a step, a running mean
        self.ranks = distributed.world()
        self.batch = config.batch_size * config.accumulate * self.ranks  # photos of a step
        self._logged_problems = 0
        self._export_seconds = 0.0

    @abstractmethod
    def measure(self, heartbeat: Callable[[], None]) -> tuple[dict[str, float], torch.Tensor]:
        """Return the metrics of the backbone as it is now, and the deciding measure's hits (Q,) bool."""

    @abstractmethod
    def weights(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint keeps of the networks; the result's backbone under "teacher.backbone."."""

    @abstractmethod
    def load(self, saved: dict) -> None:
        """Continue from a checkpoint."""

    @abstractmethod
    def load_weights(self, saved: dict) -> None:
        """Load networks and optimiser from a checkpoint."""

    @property
    def finished(self) -> bool:
        """Return whether the run has reached its end."""
        return self.step >= self.total or distributed.any_rank(self.clock.left <= 0, self.device)

    @property
    def evaluation_due(self) -> bool:
        """Return whether the backbone is to be measured before the next step."""
        return self.evaluated != self.step and (self.step % self.eval_every == 0 or self.finished)

    @property
    def checkpoint_due(self) -> bool:
        """Return whether a checkpoint is to be written after this step; evaluations write one of their own."""
        return self.step % self.checkpoint_every == 0 and self.step % self.eval_every != 0

    @property
    def seconds_left(self) -> float:
        """Return an estimate of the seconds to the end of the run."""
        return (self.total - self.step) * (self.seconds or 0.0)

    @property
    def activity(self) -> str:
        """Return what the run is doing, where that is not plain training."""
        return ""

    def clean_up(self) -> None:  # noqa: B027 (nothing to remove by default)
        """Remove files that only a run that goes on needs."""

    @property
    def eval_every(self) -> int:
        """Return the steps between evaluations."""
        return self.config.eval_every or max(1, self.total // 10)

    @property
    def checkpoint_every(self) -> int:
        """Return the steps between checkpoints."""
        return self.config.checkpoint_every or self.eval_every

    def log_problems(self) -> None:
        """Log the photos that could not be read since the last call."""
        for name, reason in self.cache.problems[self._logged_problems :]:
            log.warning("%s is left out: %s", name, reason)
        self._logged_problems = len(self.cache.problems)

    def progress_of(self) -> dict[str, Any]:
        """Return what else a checkpoint keeps, plain values and tensors."""
        return {
            "step": self.step,
            "total": self.total,
            "evaluated": self.evaluated,
            "lr_factor": self.lr_factor,
            "seconds": self.clock.elapsed,
            "guard": self.monitor.state_dict(),
        }

    def write_checkpoint(self, content: dict[str, Any]) -> None:
        """Write a checkpoint of this step and delete those no longer needed; raises DiskFull."""
        save_checkpoint(self.checkpoints, self.step, content)
        prune_checkpoints(self.checkpoints, self.config.keep_last, keep=(self.monitor.best_step,))

    @abstractmethod
    def save(self) -> dict[str, torch.Tensor]:
        """Write a checkpoint and return `weights`; all ranks must call together. Raises DiskFull."""

    def roll_back(self) -> None:
        """Continue from this step with the best step's networks and half the learning rate."""
        self.load_weights(load_checkpoint(checkpoint_path(self.checkpoints, self.monitor.best_step)))
        self.lr_factor /= 2

    def export(self, weights: dict[str, torch.Tensor] | None) -> None:
        """Write export/: the backbone of `weights`, or the start where they are None."""
        if self.folder is None:
            return
        began = time.perf_counter()
        start = load_folder(self.checkpoints / "start", self.start.backbone)
        if weights is not None:
            load_result(start.module, weights)
        sentence = self.verdict()["sentence"]
        card = model_card(start.backbone, sentence, self.config.to_json(), METHODS[self.config.objective])
        write_model(self.folder.export, start.module, start, card, self.config.eval_size)
        self._export_seconds = time.perf_counter() - began

    def reserve_time(self, evaluation: float) -> None:
        """Keep time for what follows the last step, by the seconds that an evaluation and an export took."""
        needed = 1.5 * evaluation + 3 * self._export_seconds + 3
        self.clock.reserve = max(self.clock.reserve, min(needed, 30 * self.config.minutes))

    def export_best(self) -> None:
        """Write export/: the best backbone where it is better than the start, else the start."""
        if self.folder is None:
            return
        path = checkpoint_path(self.checkpoints, self.monitor.best_step)
        self.export(load_checkpoint(path)["ssl"] if self.monitor.better else None)

    def verdict(self) -> dict:
        """Return the content of report.json."""
        return self.monitor.verdict(self.evaluator.where)


class DistillationState(TrainState):
    """Track student, teacher, optimiser and data of self-distillation (DINO, iBOT, KoLeo, Gram).

    Args:
        parts: Which photos are trained on, and which measured.
        total: Steps of a run that is resumed; by default as many as settings and time allow.
        **shared: Arguments of `TrainState`.
    """

    def __init__(self, parts: Split, total: int | None = None, **shared: Any):
        super().__init__(**shared)
        config, start, device = self.config, self.start, self.device
        self.loader = BatchLoader(self.cache, parts.training, config, start, device)
        self.evaluator: Evaluator = Evaluator(self.cache, parts, config, start.mean, start.std, device)
        start.module.to(device)  # type: ignore[arg-type]  # transformers wraps `to` as if it were no method
        self.evaluator.remember_start(start.module)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)  # of the heads, alike on every rank
            self.ssl = SelfDistillation(start.module, config).to(device).train()
        self.sharded = config.shard and distributed.world() > 1
        if self.sharded:
            self.ssl.shard(device)
        if config.compile:
            for network in (self.ssl.student, self.ssl.teacher):
                network["backbone"].compile()
        self.model: torch.nn.Module = self.ssl
        self.total = total or self._length(len(parts.training))
        self.plan = Plan(config, start.backbone.depth, self.total)
        self.optimizer = make_optimizer(self.ssl, config, self.plan)
        self.monitor = CollapseMonitor(config, self.evaluator.measure, settled=round(0.4 * self.total))
        self.unfreeze()

    def unfreeze(self) -> None:
        """Unfreeze the layers scheduled for this step; wrap in DDP again if any changed."""
        if (thaw(self.optimizer, self.step) or self.model is self.ssl) and not self.sharded:
            self.model = distributed.wrap(self.ssl)

    def _length(self, photos: int) -> int:
        """Return the steps of the run: as many as its time allows, at most those that were asked for."""
        if not self.config.minutes:
            return self.config.total_steps(photos, self.ranks)
        affordable = self._affordable()
        return min(affordable, self.config.steps) if self.config.steps else affordable

    def _affordable(self) -> int:
        """Return how many steps fit into the budget, by the time of two that change nothing."""
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            crops = self.loader.next(0, 0)
            with autocast(self.device, self.config.precision):
                loss, _ = self.ssl(*crops, self.config.teacher_temp)
            loss.backward()
            self.ssl.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - began)
        self.ssl.reset_centres()
        self.loader.drain()
        self.loader.load_state_dict({"position": 0})
        slowest = distributed.from_first(min(seconds)) * self.config.accumulate
        return max(1, int((1 - EVALUATION_SHARE) * self.clock.left / slowest))

    def measure(self, heartbeat: Callable[[], None]) -> tuple[dict[str, float], torch.Tensor]:
        began = time.perf_counter()
        self.loader.drain()
        found = self.evaluator(self.ssl.teacher["backbone"], self.ssl.teacher["dino_head"], heartbeat)
        self.reserve_time(time.perf_counter() - began)
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of student and teacher, whole on the first rank."""
        return distributed.gather({k: v for k, v in self.ssl.state_dict().items() if not k.startswith("anchor.")})

    def save(self) -> dict[str, torch.Tensor]:
        """Write a checkpoint and return its weights; random states are not kept, since they follow from the seed."""
        weights, optimizer = self.weights(), distributed.gather(self.optimizer.state_dict())
        if self.folder is not None:
            sampler = self.loader.state_dict()
            self.write_checkpoint({**self.progress_of(), "ssl": weights, "optimizer": optimizer, "sampler": sampler})
        return weights

    def load(self, saved: dict) -> None:
        self.load_weights(saved)
        self.step, self.evaluated, self.lr_factor = saved["step"], saved["evaluated"], saved["lr_factor"]
        self.loader.load_state_dict(saved["sampler"])
        self.monitor.load_state_dict(saved["guard"])
        self.unfreeze()

    def load_weights(self, saved: dict) -> None:
        anchor = {k: v for k, v in self.ssl.state_dict().items() if k.startswith("anchor.")}
        distributed.load_network(self.ssl, {**saved["ssl"], **anchor})
        distributed.load_optimizer(self.optimizer, saved["optimizer"])
        self.optimizer.zero_grad(set_to_none=True)
