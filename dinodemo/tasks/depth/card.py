"""A probe's card and file: what it was trained on and how far to trust it, beside its numbers."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .head import KINDS, LinearDepthHead

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from .probe import DepthProbe
    from .training import Trained

FORMAT = "dinodemo depth probe 1"
MAX_FILE_BYTES = 64_000_000  # the largest published head, four layers of ViT-g, has 13 MB
LIMITS = {"epochs": (0, 10_000), "seed": (0, 2**63 - 1), "resolution": (1, 16_384), "bins": (2, 4096)}
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
TEXTS = ("backbone", "data", "licence", "warning", "source")


def check_options(probe: "DepthProbe") -> None:
    """Raise ValueError for options that a probe cannot have."""
    if probe.kind not in KINDS:
        raise ValueError(f'kind must be "lin1" or "lin4", got {probe.kind!r}')
    for name, (low, high) in LIMITS.items():
        value = getattr(probe, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    for name in ("relative", "flips", "mean"):
        if not isinstance(getattr(probe, name), bool):
            raise ValueError(f"{name} must be True or False, got {getattr(probe, name)!r}")
    if probe.relative and (probe.min_depth, probe.max_depth) != (None, None):
        raise ValueError("relative depth has no metres: leave min_depth and max_depth out, or relative")


def check_fitted(probe: "DepthProbe") -> None:
    """Raise ValueError when there is nothing to predict with."""
    if not hasattr(probe, "card_"):
        raise ValueError("nothing is fitted yet; call fit, load or from_meta first")


def check_engine(probe: "DepthProbe", engine: "Engine") -> None:
    """Raise ValueError when the engine runs another backbone than the probe was trained on."""
    check_fitted(probe)
    row, card = engine.backbone, probe.card_
    if (row.name, row.width, row.depth) != (card["backbone"], card["width"], card["depth"]):
        raise ValueError(
            f"this probe was trained on {card['backbone']} (width {card['width']}, {card['depth']} layers), the engine "
            f"runs {row.name} (width {row.width}, {row.depth} layers); open {card['backbone']} or train on {row.name}"
        )


def describe(probe: "DepthProbe", engine: "Engine", layers, limits, counts, trained: "Trained", words: dict) -> dict:
    """Build the card of a probe that was just trained. counts: pairs trained on and held out."""
    return {
        "format": FORMAT,
        "backbone": engine.backbone.name,
        "width": engine.backbone.width,
        "depth": engine.backbone.depth,
        "layers": list(layers),
        "normed": True,
        "resolution": probe.resolution,
        "kind": probe.kind,
        "bins": probe.bins,
        "range": list(limits),
        "relative": probe.relative,
        "flips": probe.flips,
        "mean": probe.mean,
        "seed": probe.seed,
        "epochs": probe.epochs,
        "epochs_run": trained.epochs,
        "epoch_kept": trained.kept,
        "pairs": counts[0],
        "held_out_pairs": counts[1],
        "chosen_on_held_out": trained.chosen,
        "figures": trained.figures,
        "source": "trained with dinodemo",
        **words,
    }


def make_note(card: dict) -> str:
    """Say a card's figures in words."""
    warning = f" {card['warning']}" if card["warning"] else ""
    found = card["figures"]
    if found is None:
        return f"No held-out figure ({card['source']}, {card['pairs']} pairs).{warning}"
    aligned = " after scale and shift are fitted" if card["relative"] else ""
    rmse = "" if card["relative"] else f", RMSE {found['rmse']:.2f} m"
    seen = ", which chose the epoch" if card["chosen_on_held_out"] else ""
    return (
        f"On {card['held_out_pairs']} held-out pairs{seen}{aligned}: delta1 {found['delta1']:.3f}, AbsRel "
        f"{found['abs_rel']:.3f}{rmse}, SILog {found['silog']:.1f}; trained on {card['pairs']} pairs.{warning}"
    )


def write_file(path: Path, head: LinearDepthHead, card: dict) -> None:
    """Write head and card as safetensors; as float16 where that loses nothing."""
    from safetensors.torch import save

    tensors = {name: getattr(head, name).detach().cpu().contiguous() for name in ("weight", "bias")}
    if all(torch.equal(tensor, tensor.half().float()) for tensor in tensors.values()):
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    path.write_bytes(save(tensors, {"card": json.dumps(card, allow_nan=False)}))


@contextlib.contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Turn whatever a file that is no probe makes go wrong into a ValueError that says so."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, *DAMAGE) as error:
        reason = f"{error} is missing in its card" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path.name} is not a depth probe saved by this app, or is damaged ({reason}); save or copy it again"
        ) from error


def read_file(path: Path) -> tuple[dict, LinearDepthHead]:
    """Read card and head that `write_file` wrote; raises one of many errors for other files (see `damage_refused`)."""
    from safetensors import safe_open

    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with safe_open(path, "pt") as file:
        card = json.loads((file.metadata() or {})["card"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_card(card)
    return card, build(card, tensors)


def build(card: dict, tensors: dict[str, torch.Tensor]) -> LinearDepthHead:
    """Make the head that a card describes out of `weight` (bins, L * parts * D) and `bias` (bins,)."""
    expected = {
        "weight": (card["bins"], len(card["layers"]) * (2 + card["mean"]) * card["width"]),
        "bias": (card["bins"],),
    }
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise ValueError(f"expected tensors {expected}, got {found}")
    if not all(t.dtype in (torch.float16, torch.float32) and t.isfinite().all() for t in tensors.values()):
        raise ValueError("its numbers must be finite float16 or float32")
    low, high = card["range"]
    head = LinearDepthHead(card["width"], len(card["layers"]), card["bins"], low, high, card["mean"])
    head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()} | {"centres": head.centres})
    return head


def _check_card(card: dict) -> None:
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f'its card does not say "{FORMAT}"')
    if not all(isinstance(card[name], str) for name in TEXTS) or not all(
        isinstance(card[name], bool) for name in ("normed", "mean")
    ):
        raise ValueError("its words are damaged")
    low, high = card["range"]
    layers, depth = card["layers"], card["depth"]
    if not (isinstance(depth, int) and 1 <= depth <= 1000 and len(layers) in KINDS.values()):
        raise ValueError("its layers are damaged")
    if not all(isinstance(layer, int) and 0 <= layer < depth for layer in layers):
        raise ValueError("its layers are damaged")
    if not (isinstance(card["width"], int) and 1 <= card["width"] <= 65_536 and 2 <= card["bins"] <= 4096):
        raise ValueError("its width or bins are damaged")
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise ValueError(f"its range is {low} to {high}")
    if card["figures"] is not None and not all(math.isfinite(value) for value in card["figures"].values()):
        raise ValueError("its figures are damaged")
