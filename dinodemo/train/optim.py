"""What learns, how fast and when: parameter groups, the plan of thawing, and the schedules of a run."""

from dataclasses import dataclass

import torch
from torch import nn

from .config import FinetuneConfig
from .network import layer_of
from .schedules import cosine, warmup
from .sharding import whole
from .ssl import SelfDistillation

NEVER = 1 << 62
_TOKENS = ("cls_token", "mask_token", "register_tokens", "position_embeddings")


@dataclass(frozen=True)
class Values:
    """Hold the schedules' values at one step."""

    lr: float  # of the backbone's last block
    head_lr: float
    weight_decay: float
    momentum: float
    teacher_temp: float


class Plan:
    """Tell every schedule's value at a step of a run of `total` steps, and from which step a layer learns.

    After the heads' warm-up the blocks thaw from the top down, one after the other, then the embeddings; each starts
    with a learning-rate warm-up of its own, since Adam's first steps are its largest.
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
        """Return the share of its learning rate that a layer gets which thawed at step `start`."""
        return min(1.0, max(0.0, (step - start + 1) / self.warmup_steps))


def make_optimizer(ssl: SelfDistillation, config: FinetuneConfig, plan: Plan) -> torch.optim.AdamW:
    """Group the student's parameters by layer and decay; learning rates fall by layer_decay from block to block."""
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
    """Set every group's learning rate and weight decay for a step; lr_factor slows all down after a roll-back."""
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
    """Let those groups have gradients whose time has come; tells whether that changed anything."""
    changed = False
    for group in optimizer.param_groups:
        learns = step >= group["thaw_step"]
        for parameter in group["params"]:
            changed |= parameter.requires_grad != learns
            parameter.requires_grad_(learns)
    return changed


def clip(ssl: SelfDistillation, limit: float) -> torch.Tensor:
    """Clip the gradient norm of the backbone and of each head to the limit (0: off); returns the norm of all."""
    norms = [nn.utils.clip_grad_norm_(module.parameters(), limit or float("inf")) for module in ssl.student.values()]
    return torch.stack([whole(norm) for norm in norms]).norm()
