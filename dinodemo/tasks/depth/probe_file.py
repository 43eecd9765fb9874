"""A probe's file: head, card and world as safetensors, and what reads it safely."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ...io import files
from .card import FORMAT
from .head import KINDS, LinearDepthHead
from .nearness import PLACES, Nearness
from .world import World

FORMER = "dinodemo depth probe 1"  # of version 0.1: "figures" for metrics, no identity, no world
MAX_FILE_BYTES = 64_000_000  # the largest published head, four layers of ViT-g, has 13 MB
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
TEXTS = ("backbone", "identity", "data", "licence", "warning", "source")
CORESET = "world.coreset"
NEARNESS, NEARNESS_PLACE = "nearness.weight", "nearness.place"


def write_file(
    path: Path, head: LinearDepthHead, card: dict, world: World | None, nearness: Nearness | None = None
) -> None:
    """Write head, card, world and nearness as safetensors; the head as float16 where that loses nothing."""
    from safetensors.torch import save

    tensors = {name: getattr(head, name).detach().cpu().contiguous() for name in ("weight", "bias")}
    if all(torch.equal(tensor, tensor.half().float()) for tensor in tensors.values()):
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    if world is not None:
        tensors[CORESET], card = torch.from_numpy(world.coreset).half(), card | {"world": world.threshold}
    if nearness is not None:
        tensors |= {NEARNESS: torch.from_numpy(nearness.weight), NEARNESS_PLACE: torch.from_numpy(nearness.place)}
    files.write_file(path, save(tensors, {"card": json.dumps(card, allow_nan=False)}))


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


def read_file(path: Path) -> tuple[dict, LinearDepthHead, World | None, Nearness | None]:
    """Read what `write_file` wrote; raises one of many errors for other files (see `damage_refused`)."""
    from safetensors import safe_open

    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with safe_open(path, "pt") as file:
        card = json.loads((file.metadata() or {})["card"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if isinstance(card, dict) and card.get("format") == FORMER:
        card = _from_former(card)
    _check_card(card)
    coreset, threshold = tensors.pop(CORESET, None), card.pop("world", None)
    nearness = _build_nearness(card, tensors.pop(NEARNESS, None), tensors.pop(NEARNESS_PLACE, None))
    return card, build(card, tensors), _build_world(card, coreset, threshold), nearness


def _build_nearness(card: dict, weight: torch.Tensor | None, place: torch.Tensor | None) -> Nearness | None:
    facts = card.get("nearness")  # files of former versions have none
    if facts is None and weight is None and place is None:
        return None
    if facts is None or weight is None or place is None:
        raise ValueError("a part of its map of near and far is missing")
    window, share = float(facts["window"]), float(facts["share"])
    fits = weight.shape == (card["width"],) and place.shape == (PLACES,) and 0 <= window <= 1 and 0 <= share <= 1
    if not (fits and weight.isfinite().all() and place.isfinite().all()):
        raise ValueError("its map of near and far is damaged")
    return Nearness(weight.float().numpy(), place.float().numpy(), window, share)


def _from_former(card: dict) -> dict:
    return card | {"format": FORMAT, "metrics": card["figures"], "inverse": False, "balanced": False, "identity": ""}


def _build_world(card: dict, coreset: torch.Tensor | None, threshold: float | None) -> World | None:
    if coreset is None and threshold is None:
        return None
    if coreset is None or threshold is None:
        raise ValueError("half of its model of the training pictures is missing")
    points = coreset.float().numpy()
    fits = points.ndim == 2 and len(points) and points.shape[1] == 2 * card["width"]
    if not (fits and np.isfinite(points).all() and math.isfinite(threshold) and threshold > 0):
        raise ValueError("its model of the training pictures is damaged")
    return World(points, float(threshold))


def build(card: dict, tensors: dict[str, torch.Tensor]) -> LinearDepthHead:
    """Build the head that a card describes out of `weight` (bins, L * parts * D) and `bias` (bins,)."""
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
    if card["metrics"] is not None and not all(math.isfinite(value) for value in card["metrics"].values()):
        raise ValueError("its metrics are damaged")
