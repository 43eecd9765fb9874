"""Student, teacher and heads; one step's losses: DINO on CLS, iBOT on masked patches, KoLeo, Gram anchoring."""

import copy
import re

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from . import distributed
from .config import FinetuneConfig
from .heads import DINOHead
from .losses import dino_loss, gram_loss, ibot_loss, koleo_loss, sinkhorn_knopp, softmax_center, update_center
from .network import tokens

_BLOCK = re.compile(r"(?:.+\.)?layers?\.\d+")
# shapes: B photos, V = 2 global views, L local crops, N patches, D width, K prototypes, M masked patches


class SelfDistillation(nn.Module):
    """Train a student to predict its own moving average (DINOv2: Oquab et al. 2023, arXiv:2304.07193).

    `student` and `teacher` hold "backbone", "dino_head" and, unless shared, "ibot_head". The teacher has no gradients
    and is never in training mode. `anchor` is the frozen starting backbone for Gram anchoring (DINOv3: Simeoni et al.
    2025, arXiv:2508.10104), None unless gram_weight is above 0.

    Args:
        backbone: The start, in training mode or not; the student becomes this module.
        config: Of the run.
    """

    dino_centre: Tensor
    ibot_centre: Tensor

    def __init__(self, backbone: PreTrainedModel, config: FinetuneConfig):
        super().__init__()
        self.config = config
        width = backbone.config.hidden_size
        parts = {"backbone": backbone.requires_grad_(True), "dino_head": _head(width, config)}
        if config.ibot_weight and not config.shared_head:
            parts["ibot_head"] = _head(width, config)
        if not config.dino_weight and "ibot_head" in parts:
            parts["dino_head"].requires_grad_(False)
        if not config.ibot_weight:
            for name, parameter in backbone.named_parameters():
                if "mask_token" in name:
                    parameter.requires_grad_(False)
        self.student = nn.ModuleDict(parts)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.anchor = copy.deepcopy(backbone).requires_grad_(False) if config.gram_weight else None
        self.register_buffer("dino_centre", torch.zeros(1, config.prototypes))
        self.register_buffer("ibot_centre", torch.zeros(1, config.prototypes))

    def train(self, mode: bool = True) -> "SelfDistillation":
        """Switch the student alone and return self; teacher and anchor stay in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        if self.anchor is not None:
            self.anchor.eval()
        return self

    def forward(
        self, global_crops: Tensor, local_crops: Tensor | None, masks: Tensor | None, teacher_temp: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch.

        Args:
            global_crops: (V, B, 3, H, W).
            local_crops: (L, B, 3, h, w) or None.
            masks: (V * B, N) bool in the order of global_crops.flatten(0, 1), or None.
            teacher_temp: Above 0.

        Returns:
            The weighted loss, and its parts, unweighted and detached.
        """
        teacher = self.get_teacher_output(global_crops, masks, teacher_temp)
        student = self.get_student_output(global_crops, local_crops, masks)
        parts = self.compute_losses(student, teacher, masks)
        loss = sum(getattr(self.config, f"{name}_weight") * value for name, value in parts.items())
        return loss, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def get_teacher_output(self, global_crops: Tensor, masks: Tensor | None, temp: float) -> dict[str, Tensor]:
        """Return the targets; the teacher sees the crops without masks.

        Args:
            global_crops: (V, B, 3, H, W).
            masks: (V * B, N) bool or None.
            temp: Of the teacher, above 0.

        Returns:
            dino (V, B, K) and ibot (M, K), rows that sum to 1, and anchor (VB, N, D), the starting backbone's patches.
        """
        views, batch = global_crops.shape[:2]
        crops = global_crops.flatten(0, 1)
        cls, patches = tokens(self.teacher["backbone"], crops)
        dino_logits, ibot_logits = self._logits(self.teacher, cls, None if masks is None else patches[masks])
        output = {"dino": self._centred(dino_logits, "dino_centre", temp).unflatten(0, (views, batch))}
        if ibot_logits is not None:
            output["ibot"] = self._centred(ibot_logits, "ibot_centre", temp)
        if self.anchor is not None and self._backbone_learns:
            output["anchor"] = tokens(self.anchor, crops)[1]
        return output

    def get_student_output(
        self, global_crops: Tensor, local_crops: Tensor | None, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """Return what the student makes of the crops.

        Args:
            global_crops: (V, B, 3, H, W).
            local_crops: (L, B, 3, h, w) or None.
            masks: (V * B, N) bool, the patches that the student does not see, or None.

        Returns:
            Logits dino (V + L, B, K) and ibot (M, K), and the global views' cls (V, B, D) and patches (VB, N, D).
        """
        batch = global_crops.shape[1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._backbone_learns):
            cls, patches = tokens(self.student["backbone"], global_crops.flatten(0, 1), masks)
            rows = [cls]
            if local_crops is not None and len(local_crops):
                rows.append(tokens(self.student["backbone"], local_crops.flatten(0, 1))[0])
        masked = None if masks is None else patches[masks]
        dino_logits, ibot_logits = self._logits(self.student, torch.cat(rows), masked)
        return {
            "dino": dino_logits.unflatten(0, (-1, batch)),
            "ibot": ibot_logits,
            "cls": cls.unflatten(0, (-1, batch)),
            "patches": patches,
        }

    def compute_losses(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], masks: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the unweighted losses (dino, ibot, koleo, gram) that have a weight, each a float32 scalar.

        KoLeo is applied to each global view by itself and summed, not averaged, as published: DINOv2 adds
        koleo_loss_weight (0.1) * sum over both views (ssl_meta_arch.py). Two views of one photo never repel each other.

        Args:
            student: Of `get_student_output`.
            teacher: Of `get_teacher_output`.
            masks: (V * B, N) bool; iBOT needs them.

        Raises:
            ValueError: iBOT has a weight and there are no masks.
        """
        config, losses = self.config, {}
        if config.dino_weight:
            losses["dino"] = dino_loss(student["dino"], teacher["dino"], config.student_temp)
        if config.ibot_weight:
            if masks is None:
                raise ValueError("iBOT compares masked patches; give masks, or set ibot_weight to 0")
            losses["ibot"] = ibot_loss(student["ibot"], teacher["ibot"], masks, config.student_temp)
        if config.koleo_weight:
            each = [koleo_loss(view.float(), gather=True) for view in student["cls"]]  # V views (B, D)
            losses["koleo"] = torch.stack(each).sum()
        if "anchor" in teacher:
            losses["gram"] = gram_loss(student["patches"].float(), teacher["anchor"].float())
        return losses

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student: teacher = momentum * teacher + (1 - momentum) * student.

        momentum 1 keeps it, 0 copies the student, both to the last bit. Sharded, each rank moves its part.
        """
        networks = self.teacher, self.student
        teacher, student = ([distributed.own_part(p) for p in network.parameters()] for network in networks)
        torch._foreach_lerp_(teacher, student, 1 - momentum)

    def reset_centres(self) -> None:
        """Forget what has moved the centres."""
        self.dino_centre.zero_()
        self.ibot_centre.zero_()

    def shard(self, device: torch.device) -> None:
        """Split all networks over the ranks: block by block, then the rest of each backbone, and each head."""
        backbones = [self.student["backbone"], self.teacher["backbone"]]
        backbones += [] if self.anchor is None else [self.anchor]
        blocks = [part for backbone in backbones for name, part in backbone.named_modules() if _BLOCK.fullmatch(name)]
        heads = [head for net in (self.student, self.teacher) for name, head in net.items() if name != "backbone"]
        distributed.shard((*blocks, *backbones, *heads), device)

    @property
    def _backbone_learns(self) -> bool:
        return any(parameter.requires_grad for parameter in self.student["backbone"].parameters())

    def _logits(self, network: nn.ModuleDict, cls: Tensor, masked: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return float32 logits of cls rows and of masked patches; a shared head sees both at once."""
        if masked is None:
            return network["dino_head"](cls).float(), None
        if "ibot_head" in network:
            return network["dino_head"](cls).float(), network["ibot_head"](masked).float()
        both = network["dino_head"](torch.cat([cls, masked])).float()
        return both[: len(cls)], both[len(cls) :]

    def _centred(self, logits: Tensor, centre: str, temp: float) -> Tensor:
        """Return the targets (R, K) of teacher logits (R, K), and move the centre for the next step."""
        if self.config.centering == "sinkhorn":
            return sinkhorn_knopp(logits, temp)
        if self.config.centering == "off":
            return (logits / temp).softmax(dim=-1)
        targets = softmax_center(logits, getattr(self, centre), temp)
        setattr(self, centre, update_center(getattr(self, centre), logits, self.config.centre_momentum))
        return targets


def _head(width: int, config: FinetuneConfig) -> DINOHead:
    return DINOHead(width, config.prototypes, config.head_hidden, config.head_bottleneck, config.head_layers)
