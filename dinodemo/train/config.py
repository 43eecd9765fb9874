"""The settings of a run: one flat set of fields, each with its help text and the values it may have."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..backbones import DEFAULT
from .planning import SCRATCH, SCRATCH_SHAPE, choose
from .rules import DINO, INTERVAL, NOT_NEGATIVE, POSITIVE, SHARE, TAIL, one_of, setting


@dataclass(frozen=True)
class FinetuneConfig:
    """Every setting of a run. Shares are of the run's steps unless said otherwise, 0 to 1.

    Raises:
        ValueError: For a value outside its range, and for settings that contradict each other; names the field.
    """

    # what is trained, and how long
    objective: str = setting(
        "dino",
        '"diet": each photo is its own class, the last blocks learn on cached activations; "labels": the same with the '
        'classes of class folders; "dino": self-distillation of the whole network',
        one_of("diet", "labels", "dino"),
    )
    minutes: float = setting(0.0, "above 0: wall time of the whole run, whatever steps and epochs allow", NOT_NEGATIVE)
    # where it starts
    backbone: str = setting(DEFAULT, 'a name, a model folder, a finished run, a hub id, or "scratch"')
    scratch_width: int = setting(SCRATCH_SHAPE["scratch_width"], "width of a network from scratch", POSITIVE, only=DINO)
    scratch_depth: int = setting(SCRATCH_SHAPE["scratch_depth"], "its number of blocks", POSITIVE, only=DINO)
    scratch_heads: int = setting(SCRATCH_SHAPE["scratch_heads"], "its attention heads", POSITIVE, only=DINO)
    scratch_patch: int = setting(SCRATCH_SHAPE["scratch_patch"], "its patch size, px", POSITIVE, only=DINO)
    seed: int = setting(0, "seed of everything random", NOT_NEGATIVE)
    # the tail (objectives diet and labels)
    tail_blocks: int = setting(
        1, "last blocks that learn; those below run once for each view of a photo", POSITIVE, only=TAIL
    )
    tail_keys: bool = setting(
        False, "keys and values of the last block learn, too: patches then attend otherwise", only=TAIL
    )
    start_share: float = setting(
        0.0, "share of the starting weights that is averaged into the result (WiSE-FT); 0: none", SHARE, only=TAIL
    )
    views: int = setting(
        0, "views of each photo; 0: as many as time and disk allow, from 2 to 6", NOT_NEGATIVE, only=TAIL
    )
    activation_bytes: int = setting(4 << 30, "most bytes of activations on the disk", POSITIVE, only=TAIL)
    label_smoothing: float = setting(0.3, "share of the target that is spread over all classes", SHARE, only=TAIL)
    logit_scale: float = setting(
        10.0, "scale of the cosines in DIET's classifier at the start; it is learnt", POSITIVE, only=TAIL
    )
    # crops
    global_size: int = setting(224, "side of the two global crops, px", POSITIVE)
    global_scale: tuple[float, float] = setting((0.32, 1.0), "share of the photo's area in a global crop", INTERVAL)
    n_local: int = setting(8, "local crops of each photo", NOT_NEGATIVE, only=DINO)
    local_size: int = setting(98, "side of a local crop, px", POSITIVE, only=DINO)
    local_scale: tuple[float, float] = setting(
        (0.05, 0.32), "share of the photo's area in a local crop", INTERVAL, only=DINO
    )
    flip: bool = setting(True, "mirror half of the crops; off where left and right differ in meaning")
    colour: float = setting(1.0, "strength of colour jitter, 0 to 1; 0 also turns greying and solarising off", SHARE)

    # length and batches
    epochs: float = setting(10.0, "passes over the photos", POSITIVE)
    steps: int = setting(0, "above 0: this many steps, whatever epochs says", NOT_NEGATIVE)
    batch_size: int = setting(32, "photos of one step on one rank, before accumulation", POSITIVE)
    accumulate: int = setting(1, "batches whose gradients add up to one step", POSITIVE, only=DINO)

    # optimiser: AdamW
    lr: float = setting(1e-4, "peak learning rate of the backbone's last block", POSITIVE)
    head_lr: float = setting(1e-3, "peak learning rate of the heads, which start from random weights", POSITIVE)
    min_lr: float = setting(1e-6, "learning rate at the end of the run", NOT_NEGATIVE)
    warmup: float = setting(0.1, "share of the run over which learning rates rise", SHARE, only=DINO)
    layer_decay: float = setting(0.9, "factor on the learning rate from one block to the one below", SHARE, only=DINO)
    patch_embed_scale: float = setting(
        0.2, "factor on the learning rate of the patch embedding", NOT_NEGATIVE, only=DINO
    )
    weight_decay_start: float = setting(0.04, "weight decay at the start", NOT_NEGATIVE)
    weight_decay_end: float = setting(0.2, "weight decay at the end of the run", NOT_NEGATIVE, only=DINO)
    clip: float = setting(3.0, "largest gradient norm of the backbone and of each head; 0: off", NOT_NEGATIVE)
    drop_path: float = setting(0.0, "probability that a block is skipped for a photo", SHARE, only=DINO)
    # continuing a trained backbone
    head_warmup: float = setting(0.15, "share in which only the heads learn, on the frozen backbone", SHARE, only=DINO)
    thaw: float = setting(
        0.25, "share after that over which blocks unfreeze one by one, from the top", SHARE, only=DINO
    )
    max_blocks: int = setting(
        0, "at most this many blocks unfreeze; 0: all, and then the embeddings", NOT_NEGATIVE, only=DINO
    )

    # teacher
    momentum_start: float = setting(
        0.994, "the teacher's momentum; 1: it never learns, 0: copies the student", SHARE, only=DINO
    )
    momentum_end: float = setting(1.0, "momentum of the teacher at the end of the run", SHARE, only=DINO)
    teacher_temp_start: float = setting(
        0.04, "temperature of the teacher at the start; lower is sharper", POSITIVE, only=DINO
    )
    teacher_temp: float = setting(0.07, "temperature of the teacher after its warmup", POSITIVE, only=DINO)
    teacher_temp_warmup: float = setting(0.3, "share over which the teacher's temperature rises", SHARE, only=DINO)
    student_temp: float = setting(0.1, "temperature of the student", POSITIVE, only=DINO)
    centering: str = setting(
        "sinkhorn",
        '"softmax": the moving centre of DINO; "off": nothing prevents collapse',
        one_of("sinkhorn", "softmax", "off"),
        only=DINO,
    )
    centre_momentum: float = setting(0.9, "momentum of the moving centre", SHARE, only=DINO)
    # losses
    dino_weight: float = setting(
        1.0, "weight of the DINO loss: crops of a photo agree on it; 0: off", NOT_NEGATIVE, only=DINO
    )
    ibot_weight: float = setting(
        1.0, "weight of the iBOT loss: masked patches are predicted; 0: off", NOT_NEGATIVE, only=DINO
    )
    koleo_weight: float = setting(0.1, "weight of KoLeo: photos of a batch spread out; 0: off", NOT_NEGATIVE)
    gram_weight: float = setting(
        0.0, "weight of Gram: patch similarities stay those of the start", NOT_NEGATIVE, only=DINO
    )
    mask_probability: float = setting(0.5, "share of global crops with masked patches", SHARE, only=DINO)
    mask_ratio: tuple[float, float] = setting((0.1, 0.5), "share of a masked crop's patches", INTERVAL, only=DINO)

    # heads
    shared_head: bool = setting(False, "one head for CLS and patches", only=DINO)
    prototypes: int = setting(4096, "outputs of the heads", POSITIVE, only=DINO)
    head_hidden: int = setting(2048, "width of the heads' hidden layers", POSITIVE, only=DINO)
    head_bottleneck: int = setting(256, "width before the prototypes", POSITIVE, only=DINO)
    head_layers: int = setting(3, "layers of the heads", POSITIVE, only=DINO)
    freeze_last_layer: float = setting(
        0.02, "share of the run in which the heads' last layers are frozen", SHARE, only=DINO
    )

    # evaluation, and what follows from it
    eval_every: int = setting(0, "steps between evaluations; 0: ten evaluations a run", NOT_NEGATIVE)
    eval_images: int = setting(512, "most photos measured", POSITIVE)
    eval_size: int = setting(224, "side of the centre of each measured photo, px", POSITIVE)
    holdout: float = setting(0.2, "share of the photos held out of training and measured, at most eval_images", SHARE)
    measure: str = setting(
        "auto",
        "what decides; auto: k-NN where the folder has classes, else crop_recall",
        one_of("auto", "knn", "crop_recall"),
    )
    fall_tolerance: float = setting(0.03, "how far the measure may fall, or twice its noise", NOT_NEGATIVE)
    rank_floor: float = setting(0.3, "below this share of the best effective rank it counts as collapse", SHARE)
    patience: int = setting(2, "evaluations in a row with a fallen measure before on_fall applies", POSITIVE)
    on_fall: str = setting(
        "rollback",
        "what follows when the measure falls, or numbers are not finite",
        one_of("rollback", "stop", "continue"),
    )
    # the machine
    precision: str = setting(
        "auto",
        "number format of the forward pass; auto: bfloat16 where the GPU has it",
        one_of("auto", "float32", "bfloat16"),
    )
    compile: bool = setting(False, "torch.compile: slower start, faster steps", only=DINO)
    shard: bool = setting(
        False, "several processes split every network among them (FSDP2); for very large backbones", only=DINO
    )
    checkpoint_every: int = setting(0, "steps between checkpoints; 0: with every evaluation", NOT_NEGATIVE)
    keep_last: int = setting(2, "checkpoints kept besides the best", POSITIVE)
    log_every: int = setting(1, "steps between two lines of metrics", POSITIVE)
    cache_bytes: int = setting(2 << 30, "bytes of decoded photos in memory; the rest goes to a file", NOT_NEGATIVE)

    def __post_init__(self) -> None:
        for field in fields(self):
            value, rule = getattr(self, field.name), field.metadata["rule"]
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number, got {value}")
            if not rule.accepts(value):
                raise ValueError(f"{field.name} must {rule.text}, got {value!r}")
        _check_contradictions(self)

    @classmethod
    def for_dataset(cls, n_images: int, backbone: str = DEFAULT, device: str = "auto", **explicit) -> "FinetuneConfig":
        """Choose settings for a folder of photos; `planning.choose` gives the reasons.

        Args:
            n_images: Number of photos.
            backbone: Name, model folder, finished run, hub id, or "scratch".
            device: "auto", "cpu", "cuda" or "mps".
            **explicit: Settings that win over the chosen ones.

        Raises:
            ValueError: For names that are no setting, and for settings that contradict each other.
        """
        check_names(explicit)
        check_lengths(explicit)
        chosen = choose(n_images, backbone, device, explicit, any(only_of(name) == DINO for name in explicit))
        return cls.from_dict({**chosen, **explicit, "backbone": backbone})

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "FinetuneConfig":
        """Return a configuration of names and values; raises ValueError that names a wrong field."""
        check_names(settings)
        return cls(**{name: _typed(name, value) for name, value in settings.items()})

    def replace(self, **changes) -> "FinetuneConfig":
        """Return a copy with some settings changed."""
        return self.from_dict({**dataclasses.asdict(self), **changes})

    def to_json(self) -> str:
        """Return every setting as JSON; `from_dict(json.loads(...))` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def total_steps(self, n_images: int, world: int = 1) -> int:
        """Return the optimiser steps of a run on `n_images` photos and `world` ranks."""
        per_step = self.batch_size * self.accumulate * world
        return self.steps or max(1, math.ceil(self.epochs * n_images / per_step))

    def check_patch(self, patch_size: int) -> None:
        """Raise ValueError where a crop is not made of whole patches."""
        for name in ("global_size", "local_size", "eval_size"):
            size = getattr(self, name)
            if size % patch_size and not (name == "local_size" and not self.n_local):
                fits = max(patch_size, round(size / patch_size) * patch_size)
                raise ValueError(f"{name} {size} is not a multiple of the patch size {patch_size}; use {fits}")


def explanations(objective: str = "") -> dict[str, str]:
    """Return help texts by the field's name, in the order of the fields: all, or those that mean something."""
    found = fields(FinetuneConfig)
    return {f.name: f.metadata["help"] for f in found if not objective or objective in f.metadata["only"]}


def only_of(name: str) -> tuple[str, ...]:
    """Return the objectives to which a setting means something."""
    return FinetuneConfig.__dataclass_fields__[name].metadata["only"]


def parse_set(pairs: Iterable[str]) -> dict[str, Any]:
    """Return typed settings of ["lr=1e-4", "global_scale=0.4,1"]; raises ValueError that names the field."""
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
    """Raise ValueError for a name that is no setting; the message suggests the closest one."""
    known = [field.name for field in fields(FinetuneConfig)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise ValueError(f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def check_lengths(explicit: Mapping[str, Any]) -> None:
    """Raise ValueError when both a number of epochs and a number of steps are given."""
    if explicit.get("steps") and "epochs" in explicit:
        raise ValueError(f"steps={explicit['steps']} and epochs={explicit['epochs']} contradict each other; keep one")


def _typed(name: str, value: Any) -> Any:
    """Convert a value, or its text, to the type of the field's default."""
    default: Any = FinetuneConfig.__dataclass_fields__[name].default
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
        kinds = {tuple: "two numbers", bool: "true or false", int: "a whole number"}
        kind = kinds.get(type(default), "a number")
        raise ValueError(f"{name} must be {kind} like {default}, got {value!r}") from error


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
