"""What learns, how fast and when: the schedules of a run, parameter groups, and when layers unfreeze."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..backbones.adapter import layer_of
from .config import FinetuneConfig
from .distributed import whole
from .ssl import SelfDistillation

NEVER = 1 << 62
_TOKENS = ("cls_token", "mask_token", "register_tokens", "position_embeddings")


@dataclass(frozen=True)
class Schedule:
    """Rise linearly from `before` to `start` over `warmup` steps, then follow a half cosine to `end` until `total`."""

    start: float
    end: float
    total: int
    warmup: int
    before: float

    def __call__(self, step: int) -> float:
        """Return the value at a step, 0 to total - 1; the last one is kept afterwards."""
        if step < self.warmup:
            return self.before + (self.start - self.before) * step / self.warmup
        length = self.total - self.warmup
        if length <= 1 or step >= self.total:
            return self.end
        along = (step - self.warmup) / (length - 1)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * along)) / 2


def cosine(start: float, end: float, total: int, warmup: int = 0, warmup_start: float = 0.0) -> Schedule:
    """Return a half cosine after a linear warmup (Loshchilov 2017).

    Args:
        start: Value after the warmup.
        end: Value at the last step, and afterwards.
        total: Steps of the whole schedule.
        warmup: Steps of the rise, 0 to `total`.
        warmup_start: Value at step 0 of the rise.

    Raises:
        ValueError: `warmup` does not fit into `total`.
    """
    if total < 0 or not 0 <= warmup <= max(total, 0):
        raise ValueError(f"warmup must lie between 0 and the {total} steps of the run, got {warmup}")
    return Schedule(start, end, total, warmup, warmup_start)


def warmup(start: float, end: float, steps: int) -> Schedule:
    """Return a linear rise, constant afterwards.

    Args:
        start: Value at step 0.
        end: Value from step `steps` on.
        steps: Of the rise, 0 or more.

    Raises:
        ValueError: `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"a warmup needs 0 steps or more, got {steps}")
    return Schedule(end, end, steps, steps, start)


@dataclass(frozen=True)
class Values:
    """The schedules' values at one step."""

    lr: float  # of the backbone's last block
    head_lr: float
    weight_decay: float
    momentum: float
    teacher_temp: float


class Plan:
    """Compute the schedules of a run, and the step from which each layer learns.

    After the heads' warm-up the blocks unfreeze from the top down, one after the other, then the embeddings; each
    starts with a learning-rate warm-up of its own, since Adam's first steps are its largest.

    Args:
        config: Of the run.
        depth: Blocks of the backbone.
        total: Steps of the run.
    """

    def __init__(self, config: FinetuneConfig, depth: int, total: int):
        self.config, self.depth, self.total = config, depth, total
        self.warmup_steps = max(1, round(config.warmup * total))
        self.last_layer_from = round(config.freeze_last_layer * total)
        self._lr = cosine(config.lr, config.min_lr, total)
        self._head_lr = cosine(config.head_lr, config.min_lr, total, warmup=self.warmup_steps)
        self._decay = cosine(config.weight_decay_start, config.weight_decay_end, total)
        self._momentum = cosine(config.momentum_start, config.momentum_end, total)
        self._temp = warmup(config.teacher_temp_start, config.teacher_temp, round(config.teacher_temp_warmup * total))

    def values(self, step: int) -> Values:
        """Return the schedules' values at a step, 0 to total - 1."""
        return Values(self._lr(step), self._head_lr(step), self._decay(step), self._momentum(step), self._temp(step))

    def thaw_step(self, layer: int) -> int:
        """Return the first step in which a layer learns: depth + 1 final norm, depth to 1 blocks, 0 embeddings."""
        above = max(self.depth - layer, 0)  # 0 for the last block and the norm after it
        if self.config.max_blocks and above >= self.config.max_blocks:
            return NEVER
        start, span = self.config.head_warmup, self.config.thaw
        return round((start + span * above / self.depth) * self.total)

    def ramp(self, start: int, step: int) -> float:
        """Return the share of its learning rate that a layer has at a step, 0 to 1.

        Args:
            start: Step at which the layer was unfrozen.
            step: Of the run.
        """
        return min(1.0, max(0.0, (step - start + 1) / self.warmup_steps))


def make_optimizer(ssl: SelfDistillation, config: FinetuneConfig, plan: Plan) -> torch.optim.AdamW:
    """Return AdamW over the student's parameters, grouped by layer and weight decay.

    Args:
        ssl: The networks; frozen parameters of the student are left out.
        config: Gives layer_decay, the factor on the learning rate from one block to the one below.
        plan: Gives the step from which each layer learns.
    """
    groups: dict[tuple, dict] = {}
    for part, module in ssl.student.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                traits = _head_traits(name) if part != "backbone" else _backbone_traits(name, config, plan)
                traits["decays"] = parameter.ndim > 1 and not any(token in name for token in _TOKENS)
                groups.setdefault(tuple(traits.items()), {**traits, "params": []})["params"].append(parameter)
    fused = all(p.is_cuda for group in groups.values() for p in group["params"])
    return torch.optim.AdamW(groups.values(), lr=0.0, weight_decay=0.0, fused=fused or None)


def _head_traits(name: str) -> dict:
    return {"head": True, "last": "last_layer" in name, "scale": 1.0, "thaw_step": 0}


def _backbone_traits(name: str, config: FinetuneConfig, plan: Plan) -> dict:
    layer = layer_of(name, plan.depth)
    scale = config.layer_decay ** max(plan.depth - layer, 0)
    if "patch_embeddings" in name:
        scale *= config.patch_embed_scale
    return {"head": False, "last": False, "scale": scale, "thaw_step": plan.thaw_step(layer)}


def schedule_step(optimizer: torch.optim.AdamW, plan: Plan, step: int, lr_factor: float = 1.0) -> Values:
    """Set every group's learning rate and weight decay for a step.

    Args:
        optimizer: Of `make_optimizer`.
        plan: The schedules.
        step: 0 to total - 1.
        lr_factor: On all learning rates; below 1 after a roll-back.

    Returns:
        The schedules' values.
    """
    values = plan.values(step)
    for group in optimizer.param_groups:
        if group["head"]:
            frozen = group["last"] and step < plan.last_layer_from
            rate = 0.0 if frozen else values.head_lr
        else:
            rate = values.lr * group["scale"] * plan.ramp(group["thaw_step"], step)
        group["lr"] = rate * lr_factor
        group["weight_decay"] = values.weight_decay * group["decays"]
    return values


def thaw(optimizer: torch.optim.AdamW, step: int) -> bool:
    """Unfreeze the parameter groups scheduled for a step.

    Args:
        optimizer: Of `make_optimizer`.
        step: Of the run.

    Returns:
        Whether any parameter began or ceased to learn.
    """
    changed = False
    for group in optimizer.param_groups:
        learns = step >= group["thaw_step"]
        for parameter in group["params"]:
            changed |= parameter.requires_grad != learns
            parameter.requires_grad_(learns)
    return changed


def clip(ssl: SelfDistillation, limit: float) -> torch.Tensor:
    """Clip the gradient norm of the backbone and of each head.

    Args:
        ssl: Whose student is clipped, in place.
        limit: Of each norm; 0: off.

    Returns:
        The norm of all gradients together before clipping, a scalar.
    """
    norms = [nn.utils.clip_grad_norm_(module.parameters(), limit or float("inf")) for module in ssl.student.values()]
    return torch.stack([whole(norm) for norm in norms]).norm()
