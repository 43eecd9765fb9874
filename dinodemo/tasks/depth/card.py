"""A probe's card: what it was trained on, with which network, and how far to trust it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...backbones.identity import Identity, check
from .head import KINDS

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from .probe import DepthProbe
    from .training import Trained

FORMAT = "dinodemo depth probe 2"
LIMITS = {"epochs": (0, 10_000), "seed": (0, 2**63 - 1), "resolution": (1, 16_384), "bins": (2, 4096)}
FLAGS = ("relative", "inverse", "balanced", "flips", "mean")
REBUILD = "train it again with the present weights, or put back those it was made with"


def check_options(probe: "DepthProbe") -> None:
    """Raise ValueError for options that a probe cannot have."""
    if probe.kind not in KINDS:
        raise ValueError(f'kind must be "lin1" or "lin4", got {probe.kind!r}')
    for name, (low, high) in LIMITS.items():
        value = getattr(probe, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    for name in FLAGS:
        if not isinstance(getattr(probe, name), bool) and not (name == "inverse" and probe.inverse is None):
            raise ValueError(f"{name} must be True or False, got {getattr(probe, name)!r}")
    if probe.relative and (probe.min_depth, probe.max_depth) != (None, None):
        raise ValueError("relative depth has no metres: leave min_depth and max_depth out, or relative")


def check_fitted(probe: "DepthProbe") -> None:
    """Raise ValueError when there is nothing to predict with."""
    if not hasattr(probe, "card_"):
        raise ValueError("nothing is fitted yet; call fit, load or from_meta first")


def check_engine(probe: "DepthProbe", engine: "Engine") -> str:
    """Check that an engine runs the network that a probe was trained on.

    Returns:
        A warning where the probe does not record its weights (version 0.1), else an empty text.

    Raises:
        ValueError: for another backbone, or the same one with other weights.
    """
    check_fitted(probe)
    row, card = engine.backbone, probe.card_
    if (row.name, row.width, row.depth) != (card["backbone"], card["width"], card["depth"]):
        raise ValueError(
            f"this probe was trained on {card['backbone']} (width {card['width']}, {card['depth']} layers), the engine "
            f"runs {row.name} (width {row.width}, {row.depth} layers); open {card['backbone']} or train on {row.name}"
        )
    if card["source"].startswith("published"):
        return ""  # for the official weights, whose checksum its file cannot know
    return check(Identity.from_json(card.get("identity")), engine.identity, "this probe", REBUILD)


def describe(
    probe: "DepthProbe",
    engine: "Engine",
    layers: Sequence[int],
    limits: tuple[float, float],
    counts: tuple[int, int],
    trained: "Trained",
    words: dict[str, str],
) -> dict:
    """Build the card of a probe that was just trained.

    Args:
        layers: that the head reads, from 0.
        limits: of the bins.
        counts: of pairs trained on and held out.
        words: data, licence and warning.
    """
    return {
        "format": FORMAT,
        "backbone": engine.backbone.name,
        "identity": engine.identity.to_json(),
        "width": engine.backbone.width,
        "depth": engine.backbone.depth,
        "layers": list(layers),
        "normed": True,
        "resolution": probe.resolution,
        "kind": probe.kind,
        "bins": probe.bins,
        "range": list(limits),
        "relative": probe.relative,
        "inverse": probe.inverse_,
        "balanced": probe.balanced,
        "flips": probe.flips,
        "mean": probe.mean,
        "seed": probe.seed,
        "epochs": probe.epochs,
        "epochs_run": trained.epochs,
        "epoch_kept": trained.kept,
        "pairs": counts[0],
        "held_out_pairs": counts[1],
        "chosen_on_held_out": trained.chosen,
        "metrics": trained.metrics,
        "nearness": None if probe.nearness_ is None else {"layer": layers[-1], **probe.nearness_.facts()},
        "source": "trained with dinodemo",
        **words,
    }


def make_note(card: dict) -> str:
    """Return a card's metrics and warning as a sentence."""
    warning = f" {card['warning']}" if card["warning"] else ""
    found = card["metrics"]
    if found is None:
        return f"No held-out figure ({card['source']}, {card['pairs']} pairs).{warning}"
    aligned = " after scale and shift are fitted" if card["relative"] else ""
    rmse = "" if card["relative"] else f", RMSE {found['rmse']:.2f} m"
    seen = ", which chose the epoch" if card["chosen_on_held_out"] else ""
    return (
        f"On {card['held_out_pairs']} held-out pairs{seen}{aligned}: delta1 {found['delta1']:.3f}, AbsRel "
        f"{found['abs_rel']:.3f}{rmse}, SILog {found['silog']:.1f}; trained on {card['pairs']} pairs.{warning}"
    )
