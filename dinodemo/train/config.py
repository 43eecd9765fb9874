"""The settings of a run: one flat set of fields, checked when it is made."""

import dataclasses
import difflib
import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..backbones import DEFAULT

SCRATCH = "scratch"  # the backbone's name for a new network with random weights
_CHOICES = {
    "centering": ("sinkhorn", "softmax", "off"),
    "precision": ("auto", "float32", "bfloat16"),
    "on_fall": ("rollback", "stop", "continue"),
    "measure": ("auto", "knn", "crop_recall"),
}
_SHARES = ("momentum_start", "momentum_end", "warmup", "head_warmup", "thaw", "teacher_temp_warmup", "mask_probability",
           "freeze_last_layer", "drop_path", "holdout", "rank_floor", "layer_decay", "centre_momentum",
           "colour")  # fmt: skip
_POSITIVE = ("batch_size", "accumulate", "lr", "head_lr", "epochs", "global_size", "local_size", "student_temp",
             "teacher_temp", "teacher_temp_start", "prototypes", "head_hidden", "head_bottleneck", "head_layers",
             "keep_last", "eval_images", "eval_size", "patience", "log_every", "scratch_width", "scratch_depth",
             "scratch_heads", "scratch_patch")  # fmt: skip
_NOT_NEGATIVE = ("steps", "n_local", "dino_weight", "ibot_weight", "koleo_weight", "gram_weight", "min_lr", "clip",
                 "weight_decay_start", "weight_decay_end", "patch_embed_scale", "max_blocks", "eval_every",
                 "checkpoint_every", "cache_bytes", "fall_tolerance", "seed")  # fmt: skip


@dataclass(frozen=True)
class FinetuneConfig:
    """Hold every setting of a run. Shares are of the run's steps unless said otherwise; 0 to 1."""

    # where it starts
    backbone: str = DEFAULT  # a name, a model folder, a finished run, a hub id, or "scratch"
    scratch_width: int = 192  # the shape of a network from scratch
    scratch_depth: int = 12  # blocks of a network from scratch
    scratch_heads: int = 3  # attention heads of a network from scratch
    scratch_patch: int = 14  # pixels of a patch of a network from scratch
    seed: int = 0  # everything random follows from it
    # crops
    global_size: int = 224  # pixels, two global crops
    global_scale: tuple[float, float] = (0.32, 1.0)  # share of the photo's area
    n_local: int = 8  # small crops of each photo
    local_size: int = 98  # pixels of a small crop
    local_scale: tuple[float, float] = (0.05, 0.32)  # share of the photo's area that a small crop shows
    flip: bool = True  # off where left and right mean something
    colour: float = 1.0  # strength of colour jitter, 0 to 1; 0 also switches greying and solarising off

    # length and batches
    epochs: float = 10.0  # times every photo is seen
    steps: int = 0  # above 0: this many steps, whatever epochs says
    batch_size: int = 32  # photos of one step on one rank, before accumulation
    accumulate: int = 1  # batches whose gradients are added up to one step

    # optimiser: AdamW
    lr: float = 1e-4  # peak learning rate of the backbone's last block
    head_lr: float = 1e-3  # peak learning rate of the heads, which start from random weights
    min_lr: float = 1e-6  # learning rate at the end of the run
    warmup: float = 0.1  # the learning rates rise over this share
    layer_decay: float = 0.9  # learning rate per block, from the top down
    patch_embed_scale: float = 0.2  # factor on the learning rate of the patch embedding
    weight_decay_start: float = 0.04  # pull of the weights towards zero, at first
    weight_decay_end: float = 0.2  # and at the end
    clip: float = 3.0  # gradient norm of backbone and of each head; 0: off
    drop_path: float = 0.0  # chance that a block is left out for a photo
    # continuing a trained backbone
    head_warmup: float = 0.15  # the heads alone learn, on the frozen backbone
    thaw: float = 0.25  # after that, blocks thaw one by one from the top over this share
    max_blocks: int = 0  # at most this many blocks thaw; 0: all, and then the embeddings

    # teacher
    momentum_start: float = 0.994  # of the moving average; 1: the teacher never learns, 0: it copies the student
    momentum_end: float = 1.0  # and at the end of the run
    teacher_temp_start: float = 0.04  # sharpness of the teacher at first; lower is sharper
    teacher_temp: float = 0.07  # and after its warmup
    teacher_temp_warmup: float = 0.3  # the temperature rises over this share
    student_temp: float = 0.1  # sharpness of the student
    centering: str = "sinkhorn"  # "softmax": the moving centre of DINO; "off": nothing keeps it from collapse
    centre_momentum: float = 0.9  # of the moving centre
    # losses
    dino_weight: float = 1.0  # crops of a photo shall agree on it
    ibot_weight: float = 1.0  # masked patches shall be guessed; 0: off
    koleo_weight: float = 0.1  # photos of a batch shall spread out; 0: off
    gram_weight: float = 0.0  # anchors patch similarities to those of the starting backbone
    mask_probability: float = 0.5  # share of global crops with masked patches
    mask_ratio: tuple[float, float] = (0.1, 0.5)  # share of a masked crop's patches

    # heads
    shared_head: bool = False  # one head for CLS and patches
    prototypes: int = 4096  # outputs of the heads
    head_hidden: int = 2048  # width of the heads' hidden layers
    head_bottleneck: int = 256  # width before the prototypes
    head_layers: int = 3  # layers of the heads
    freeze_last_layer: float = 0.02  # share of the run in which the heads' last layers do not learn

    # guard
    eval_every: int = 0  # steps; 0: ten times a run
    eval_images: int = 512  # photos measured when there are no classes, and for the label-free measures
    eval_size: int = 224  # pixels, the centre of each photo
    holdout: float = 0.2  # share of the photos kept out of training for the verdict, at most 1000
    measure: str = "auto"  # what decides: k-NN where the folder has classes, else crop_recall
    fall_tolerance: float = 0.03  # the measure may fall this far below the start, or twice its noise
    rank_floor: float = 0.3  # below this share of the start's effective rank it counts as collapse
    patience: int = 2  # evaluations in a row with a fallen measure before something is done
    on_fall: str = "rollback"  # what follows when the measure falls, or numbers are not finite
    # the machine
    precision: str = "auto"  # of the forward pass; auto: bfloat16 where the GPU has it
    compile: bool = False  # torch.compile: slower start, faster steps
    shard: bool = False  # several processes split every network among them (FSDP2); for very large backbones
    checkpoint_every: int = 0  # steps; 0: with every evaluation
    keep_last: int = 2  # checkpoints besides the best
    log_every: int = 1  # steps
    cache_bytes: int = 2 << 30  # decoded photos in memory; more than that go to a file in the run's folder

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_contradictions(self)

    @classmethod
    def for_dataset(cls, n_images: int, backbone: str = DEFAULT, device: str = "auto", **explicit) -> "FinetuneConfig":
        """Choose settings for a folder of n_images photos; explicit settings win. See presets.choose for the reasons.

        Raises ValueError for names that are no setting and for settings that contradict each other.
        """
        from .presets import choose

        check_names(explicit)
        chosen = choose(n_images, backbone, device, explicit)
        return cls.from_dict({**chosen, **explicit, "backbone": backbone})

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "FinetuneConfig":
        """Make a configuration out of names and values; raises ValueError that names a wrong field."""
        check_names(settings)
        return cls(**{name: _typed(name, value) for name, value in settings.items()})

    def replace(self, **changes) -> "FinetuneConfig":
        """Return a copy with some settings changed."""
        return self.from_dict({**dataclasses.asdict(self), **changes})

    def to_json(self) -> str:
        """Write every setting as JSON; `from_dict(json.loads(...))` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def total_steps(self, n_images: int, world: int = 1) -> int:
        """Return the number of optimiser steps for so many photos."""
        per_step = self.batch_size * self.accumulate * world
        return self.steps or max(1, math.ceil(self.epochs * n_images / per_step))

    def check_patch(self, patch_size: int) -> None:
        """Raise ValueError where a crop is not made of whole patches."""
        for name in ("global_size", "local_size", "eval_size"):
            size = getattr(self, name)
            if size % patch_size and not (name == "local_size" and not self.n_local):
                fits = max(patch_size, round(size / patch_size) * patch_size)
                raise ValueError(f"{name} {size} is not a multiple of the patch size {patch_size}; use {fits}")


def explanations() -> dict[str, str]:
    """Return the comment that follows each field in this file, by the field's name."""
    fields_of = re.compile(r"^    (\w+): [^=#]+=[^#\n]*(?:#\s*(.*))?$", re.MULTILINE)
    return {name: text or "" for name, text in fields_of.findall(inspect.getsource(FinetuneConfig))}


def parse_set(pairs: Iterable[str]) -> dict[str, Any]:
    """Turn ["lr=1e-4", "global_scale=0.4,1"] into typed settings; raises ValueError that names the field."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"a setting is written name=value, got {pair!r}")
        check_names([name.strip()])
        if name.strip() in settings:
            raise ValueError(f"{name.strip()} is set twice; keep one")
        settings[name.strip()] = _typed(name.strip(), value.strip())
    check_lengths(settings)
    return settings


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no setting, with the nearest that is."""
    known = [field.name for field in fields(FinetuneConfig)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise ValueError(f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def check_lengths(explicit: Mapping[str, Any]) -> None:
    """Raise ValueError when a person asked for a number of epochs and for a number of steps."""
    if explicit.get("steps") and "epochs" in explicit:
        raise ValueError(f"steps={explicit['steps']} and epochs={explicit['epochs']} contradict each other; keep one")


def _typed(name: str, value: Any) -> Any:
    """Convert a value, or its text, to the type of the field's default."""
    default = next(field.default for field in fields(FinetuneConfig) if field.name == name)
    try:
        if isinstance(default, tuple):
            parts = value.strip("()[]").split(",") if isinstance(value, str) else list(value)
            low, high = (float(part) for part in parts)
            return low, high
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if isinstance(default, int):
            number = float(value)
            return int(value) if number != int(number) else int(number)  # int("1.5") raises, 1e3 is fine
        return type(default)(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        kind = "two numbers" if isinstance(default, tuple) else {bool: "true or false", int: "a whole number"}.get(
            type(default), "a number")  # fmt: skip
        raise ValueError(f"{name} must be {kind} like {default}, got {value!r}") from error


def _check_ranges(config: FinetuneConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} must be a finite number, got {value}")
        if field.name in _CHOICES and value not in _CHOICES[field.name]:
            raise ValueError(f"{field.name} must be one of {', '.join(_CHOICES[field.name])}, got {value!r}")
    for name in _SHARES:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {getattr(config, name)}")
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = getattr(config, name)
        if value < 0 or (value == 0 and name in _POSITIVE):
            raise ValueError(f"{name} must be {'above 0' if name in _POSITIVE else '0 or more'}, got {value}")
    for name in ("global_scale", "local_scale", "mask_ratio"):
        low, high = getattr(config, name)
        if not 0 < low <= high <= 1:
            raise ValueError(f"{name} must be two shares with 0 < low <= high <= 1, got {low}, {high}")


def _check_contradictions(config: FinetuneConfig) -> None:
    if not any((config.dino_weight, config.ibot_weight, config.koleo_weight, config.gram_weight)):
        raise ValueError("dino_weight, ibot_weight, koleo_weight and gram_weight are all 0: there is nothing to learn")
    if config.ibot_weight and not config.mask_probability:
        raise ValueError("ibot_weight is above 0 but mask_probability is 0: no patch would be masked; change one")
    if config.ibot_weight and round(2 * config.batch_size * config.mask_probability) < 1:
        raise ValueError(
            f"mask_probability {config.mask_probability} masks none of a batch's {2 * config.batch_size} global crops; "
            "raise it or batch_size, or set ibot_weight to 0"
        )
    if config.head_warmup + config.thaw > 1:
        raise ValueError(f"head_warmup {config.head_warmup} and thaw {config.thaw} add up to more than the whole run")
    if config.head_warmup and not (config.dino_weight or config.ibot_weight):
        raise ValueError("head_warmup trains the heads, but dino_weight and ibot_weight are 0; set head_warmup to 0")
    if config.head_warmup == 1:
        raise ValueError("head_warmup 1 leaves no step in which the backbone learns; use less")
    if config.shard and config.compile:
        raise ValueError("shard and compile are not made for each other; set one of them to false")
    if config.min_lr > min(config.lr, config.head_lr):
        raise ValueError(f"min_lr {config.min_lr} is above lr {config.lr} or head_lr {config.head_lr}")
    if config.holdout > 0.5:
        raise ValueError(f"holdout {config.holdout} keeps more photos out of training than in it; use at most 0.5")
    if config.backbone == SCRATCH:
        if config.scratch_width % config.scratch_heads:
            raise ValueError(f"scratch_width {config.scratch_width} cannot be split over {config.scratch_heads} heads")
        if config.gram_weight:
            raise ValueError("gram_weight anchors to the starting backbone, which is random from scratch; set it to 0")
        if config.head_warmup or config.thaw:
            raise ValueError("head_warmup and thaw are for a trained backbone; set both to 0 for a start from scratch")
