"""Train the last blocks on cached activations: each photo its own class (DIET), or with the labels of class folders.

First the trunk sees every photo in several views, and the head learns on the class tokens that come out; then the tail
learns too, at a fraction of what a step through the whole network costs.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Split
from ..export import load_result, teacher_backbone, write_classifier
from ..loader import Sampler, seed_of
from ..losses import koleo_loss
from ..monitor import CollapseMonitor
from ..network import load_folder
from ..optim import cosine
from ..planning import EVALUATION_SHARE
from ..runfolder import checkpoint_path, load_checkpoint
from ..state import TrainState
from .activations import Trunk
from .blocks import StartAverage, Tail
from .evaluate import TailEvaluator

log = logging.getLogger("dinodemo.train")
HEAD_STEPS, HEAD_BATCH = 2, 128  # of the head after each chunk
STEPS_MARGIN = 1.4  # evaluations take a tenth of the time, and steps get slower once the file outgrows the memory
RAMP = 20  # steps over which the tail's learning rate rises


class TailHead(nn.Module):
    """Classify class tokens (B, D) -> (B, C) logits.

    DIET (arXiv:2302.10260; on small folders DIET-CP, arXiv:2509.06990): a linear layer without bias on tokens of length
    1, times a scale that is learnt. With labels: a plain linear layer, which transformers' classifiers have too.

    Args:
        width: Of the tokens, D.
        classes: Number of classes, C.
        scale: First value of the learnt scale; 0: a plain linear layer.
    """

    def __init__(self, width: int, classes: int, scale: float):
        super().__init__()
        self.linear = nn.Linear(width, classes, bias=not scale)
        nn.init.normal_(self.linear.weight, std=width**-0.5 if scale else 0.01)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale or 1.0)), requires_grad=bool(scale))
        self.on_sphere = bool(scale)

    def forward(self, cls: Tensor) -> Tensor:
        """Return logits (B, C)."""
        if not self.on_sphere:
            return self.linear(cls)
        return self.log_scale.exp() * self.linear(F.normalize(cls, dim=-1))


class TailState(TrainState):
    """Track the trunk's activations, the tail and its head. `step` counts the trunk's chunks, then the tail's steps.

    Args:
        parts: Which photos are trained on, and which measured.
        **shared: Arguments of `TrainState`.

    Raises:
        ValueError: The objective is "labels" and the folder has no classes.
    """

    def __init__(self, parts: Split, **shared: Any):
        super().__init__(**shared)
        config, module = self.config, self.start.module
        module.to(self.device)  # type: ignore[arg-type]  # transformers wraps `to` as if it were no method
        module.eval().requires_grad_(False)
        labelled = config.objective == "labels"
        if labelled and (parts.labels is None or not parts.held_out):
            raise ValueError(
                'objective "labels" learns from class folders, of which 8 photos or more can be held out; put every '
                "photo into one of two or more folders, or train without labels"
            )
        photos = [*parts.training, *parts.queries] if parts.held_out else parts.training
        self.trunk = Trunk(
            self.cache, photos, config, self.start, self.device, self.checkpoints.parent / "cache" / "tail", self.clock
        )
        if self.trunk.size < config.global_size:
            log.warning("views are %d px: there is no time for %d px", self.trunk.size, config.global_size)
        training = set(parts.training)
        self.rows = np.flatnonzero([photo in training for photo in self.trunk.order])  # that may be trained on
        self.tail = Tail(module, config.tail_blocks).learn(config.tail_keys)
        self.average = StartAverage(self.tail, config.start_share)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            classes = len(self.photos.class_names) if labelled else len(self.rows)
            self.head = TailHead(self.trunk.width, classes, 0.0 if labelled else config.logit_scale).to(self.device)
        self._targets = self._classes_of_rows(parts, labelled)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.tail.parameters() if p.requires_grad], "peak": config.lr},
                {"params": list(self.head.parameters()), "peak": config.head_lr},
            ],
            weight_decay=config.weight_decay_start,
        )
        self.sampler = Sampler(len(self.rows), config.batch_size, config.seed, weights=self._balance(labelled))
        self.features = torch.zeros(self.trunk.views, len(self.trunk.order), self.trunk.width)  # class tokens
        self.evaluator = TailEvaluator(self.trunk, parts, config, self.tail, self.start.backbone.name, self.device)
        self.monitor = CollapseMonitor(config, self.evaluator.measure, settled=0, prefer_later=True)
        self._tail_step, self._tail_seconds = 0, 0.0
        self._evaluations = (0.0, 0.0)  # seconds of the last one, clock at its end
        per_epoch = len(self.rows) / config.batch_size
        self._tail_steps = config.steps or max(1, math.ceil(config.epochs * per_epoch))

    @property
    def total(self) -> int:  # type: ignore[override]
        """Return the steps of the run, as far as they can be told: of a budget, fewer may be done."""
        chunks = self.trunk.chunks if not self.trunk.complete else self.step - self._tail_step
        return chunks + self._tail_steps

    @property
    def progress(self) -> float:
        """Return how far the tail's schedule is, 0 to 1: by steps, or by time where that runs out first."""
        share = self._tail_step / self._tail_steps
        if not self.clock.minutes or not self._tail_step:
            return min(1.0, share)
        return min(1.0, max(share, 1 - max(0.0, self.clock.left) / max(self._tail_seconds, 1e-9)))

    @property
    def finished(self) -> bool:
        return self.trunk.complete and (self._tail_step >= self._tail_steps or self.clock.left <= 0)

    @property
    def seconds_left(self) -> float:
        steps = (self.total - self.step) * (self.seconds or 0.0)
        return min(steps, max(0.0, self.clock.left)) + (self.clock.reserve if self.clock.minutes else 0.0)

    @property
    def evaluation_due(self) -> bool:
        if not self.trunk.complete or self.evaluated == self.step:
            return False
        if self.evaluated < 0 or self.finished:
            return True
        if not self.clock.minutes:
            return self._tail_step % self.eval_every == 0
        seconds, ended = self._evaluations
        return self.clock.elapsed - ended > seconds / EVALUATION_SHARE

    @property
    def activity(self) -> str:
        if self.trunk.complete:
            return ""
        rows, n, size = self.trunk.rows, len(self.trunk.order), self.trunk.size
        halved = (
            f", at {size} px: there is no time for {self.config.global_size}" if size < self.config.global_size else ""
        )
        if seen := int((rows.views_of < 2).sum()):
            return f"looking at the photos: {n - seen} of {n}{halved}"
        done = rows.views_of.mean()
        return f"looking at {n} photos once more: {done:.1f} of {self.trunk.views} views of each{halved}"

    def clean_up(self) -> None:
        self.trunk.remove()

    def export_best(self) -> None:
        super().export_best()
        if self.folder is None or self.config.objective != "labels":
            return
        weights = load_checkpoint(checkpoint_path(self.checkpoints, self.monitor.best_step))["ssl"]
        start = load_folder(self.checkpoints / "start", self.start.backbone)
        load_result(start.module, weights)
        head = weights["head.linear.weight"], weights["head.linear.bias"]
        write_classifier(self.folder.path / "classifier", start, *head, self.photos.class_names, self.config.eval_size)

    @property
    def checkpoint_due(self) -> bool:
        return self._tail_step > 0 and self._tail_step % self.checkpoint_every == 0 and not self.evaluation_due

    @property
    def eval_every(self) -> int:
        return self.config.eval_every or max(1, self._tail_steps // 10)

    def one_step(self) -> dict[str, float] | None:
        """Fill a chunk and train the head, or train tail and head; return metrics, None where not finite."""
        if not self.trunk.complete:
            return self._fill()
        if not self._tail_step:
            self._tail_seconds = self.clock.left  # from here on
        for group, ramp in zip(self.optimizer.param_groups, (min(1.0, (self._tail_step + 1) / RAMP), 1.0), strict=True):
            fade = cosine(1.0, self.config.min_lr / group["peak"], 1001)(round(1000 * self.progress))
            group["lr"] = group["peak"] * ramp * fade * self.lr_factor
        picked = self.rows[self.sampler.next()]
        picked = picked[self.trunk.readable[picked] & (self.trunk.rows.views_of[picked] > 0)]
        if not len(picked):
            raise RuntimeError("none of a batch's photos can be read; leave the damaged files out")
        self.batch = len(picked)
        chance = np.random.default_rng(seed_of(self.config.seed, self.step))
        views = chance.integers(0, self.trunk.rows.views_of[picked])
        cls = self.tail(self.trunk.rows.get(views, picked).to(self.device), self.trunk.context)
        losses = self._losses(cls, picked)
        losses["loss"].backward()
        limit = self.config.clip or float("inf")
        norms = [nn.utils.clip_grad_norm_(group["params"], limit) for group in self.optimizer.param_groups]
        losses["grad_norm"] = torch.stack(norms).norm()
        metrics = {name: float(value.detach()) for name, value in losses.items()}
        finite = all(math.isfinite(value) for value in metrics.values())
        if finite:
            self.optimizer.step()
            self.step += 1
            self._tail_step += 1
        self.optimizer.zero_grad(set_to_none=True)
        lr, head_lr = (group["lr"] for group in self.optimizer.param_groups)
        return {**metrics, "lr": lr, "head_lr": head_lr} if finite else None

    def measure(self, heartbeat: Callable[[], None]) -> tuple[dict[str, float], Tensor]:
        began = time.perf_counter()
        with self.average.applied():
            metrics, hits = self.evaluator(heartbeat)
        self.monitor.worth = self.evaluator.worth
        seconds = time.perf_counter() - began
        self._evaluations = (seconds, self.clock.elapsed)
        self.reserve_time(seconds)
        return metrics, hits

    def weights(self) -> dict[str, Tensor]:
        with self.average.applied():
            kept = {f"teacher.backbone.{name}": value for name, value in self._tail_weights().items()}
        return kept | {f"head.{name}": value.cpu() for name, value in self.head.state_dict().items()}

    def _tail_weights(self) -> dict[str, Tensor]:
        """Return the tail's weights as they are now, by their names in the backbone."""
        mine = {id(parameter) for parameter in self.tail.parameters()}
        learnt = {name: p for name, p in self.start.module.named_parameters() if id(p) in mine}
        return {name: value.detach().cpu().clone() for name, value in learnt.items()}

    def save(self) -> dict[str, Tensor]:
        weights = self.weights()
        self.write_checkpoint(
            {
                **self.progress_of(),
                "tail_step": self._tail_step,
                "tail_seconds": self._tail_seconds,
                "ssl": weights,
                "student": self._tail_weights(),
                "optimizer": self.optimizer.state_dict(),
                "sampler": self.sampler.state_dict(),
            }
        )
        return weights

    def load(self, saved: dict) -> None:
        self.load_weights(saved)
        self.step, self.evaluated, self.lr_factor = saved["step"], saved["evaluated"], saved["lr_factor"]
        self._tail_step, self._tail_seconds = saved["tail_step"], saved["tail_seconds"]
        for _ in range(self.step - self._tail_step):
            self._look()
        self.sampler.load_state_dict(saved["sampler"])
        self.monitor.load_state_dict(saved["guard"])

    def load_weights(self, saved: dict) -> None:
        own = saved.get("student") or teacher_backbone(saved["ssl"])  # checkpoints of before averaging
        self.start.module.load_state_dict({**self.start.module.state_dict(), **own})
        head = {name.removeprefix("head."): v for name, v in saved["ssl"].items() if name.startswith("head.")}
        self.head.load_state_dict(head)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.optimizer.zero_grad(set_to_none=True)

    def _fill(self) -> dict[str, float]:
        """Compute a chunk's activations, then train the head alone on the class tokens seen so far."""
        self._look()
        self.step += 1
        if self.clock.minutes and self.trunk.has_some and math.isinf(self.trunk.seconds_of_steps):
            self.trunk.seconds_of_steps = self._tail_steps * self._seconds_of_a_step() * STEPS_MARGIN
        known = self.rows[self.trunk.readable[self.rows] & (self.features[0].abs().sum(dim=1).numpy()[self.rows] > 0)]
        if not len(known):
            return {"loss": 0.0, "lr": 0.0, "head_lr": 0.0}
        chance = np.random.default_rng(seed_of(self.config.seed, self.step))
        self.optimizer.param_groups[0]["lr"] = 0.0
        self.optimizer.param_groups[1]["lr"] = self.config.head_lr
        for _ in range(HEAD_STEPS):
            picked = chance.choice(known, min(HEAD_BATCH, len(known)), replace=False)
            views = chance.integers(0, self.trunk.rows.views_of[picked])
            losses = self._losses(self.features[views, picked].to(self.device), picked, koleo=False)
            losses["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return {"loss": float(losses["loss"].detach()), "lr": 0.0, "head_lr": self.config.head_lr}

    def _seconds_of_a_step(self) -> float:
        """Measure a step of the tail that changes nothing, on the photos seen so far."""
        known = np.resize(self.rows[self.trunk.rows.views_of[self.rows] > 0], self.config.batch_size)
        seconds = []
        for _ in range(2):  # the first one is slower than those that follow
            began = time.perf_counter()
            hidden = self.trunk.rows.get(np.zeros(len(known), int), known).to(self.device)
            self._losses(self.tail(hidden, self.trunk.context), known)["loss"].backward()
            self.optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    @torch.no_grad()
    def _look(self) -> None:
        """Compute a chunk's activations and class tokens."""
        view, rows, hidden = self.trunk.fill()
        self.batch = len(rows)
        if rows:
            self.features[view, rows] = self.tail(hidden.to(self.device), self.trunk.context).float().cpu()

    def _losses(self, cls: Tensor, rows: np.ndarray, koleo: bool = True) -> dict[str, Tensor]:
        """Return the weighted loss and its parts of class tokens (B, D) of rows (B,)."""
        targets = self._targets[torch.as_tensor(rows)].to(self.device)
        parts = {"classes": F.cross_entropy(self.head(cls), targets, label_smoothing=self.config.label_smoothing)}
        loss = parts["classes"]
        if koleo and self.config.koleo_weight:
            parts["koleo"] = koleo_loss(cls)
            loss = loss + self.config.koleo_weight * parts["koleo"]
        return {"loss": loss, **parts}

    def _classes_of_rows(self, parts: Split, labelled: bool) -> Tensor:
        """Return the class of each row of the trunk, (n,) int64; -1 for those that are not trained on."""
        targets = torch.full((len(self.trunk.order),), -1)
        if labelled and parts.labels is not None:
            targets[self.rows] = parts.labels[[self.trunk.order[row] for row in self.rows]]
        else:
            targets[self.rows] = torch.arange(len(self.rows))
        return targets

    def _balance(self, labelled: bool) -> list[float] | None:
        """Return how often each row is drawn: with labels, every class as often as the others."""
        if not labelled:
            return None
        mine = self._targets[self.rows]
        return (1.0 / torch.bincount(mine)[mine]).tolist()
