"""What a set of pairs holds, to be looked at before a probe is trained on it: pairing, unit, range, a few pictures."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath

import numpy as np

from ...io.files import plural
from ...io.images import fit_within, load_photo
from ...io.render import colourise
from .draw import Look, natural_range, shade
from .pairs import METRES, PairList, RGBDPair

BINS = 24
SHOWN = 3  # pairs drawn
LISTED = 8  # pairs named
PICTURE_SIDE = 320


def histogram(pairs: Sequence[RGBDPair], bins: int = BINS) -> list[tuple[float, float]]:
    """Return (depth in the middle of a bin, share of the readings in percent), from 0 to the 99.5 % quantile."""
    readings = np.concatenate([pair.depth[pair.depth > 0][:: max(1, pair.depth.size // 20_000)] for pair in pairs])
    counts, edges = np.histogram(readings, bins, (0, float(np.quantile(readings, 0.995))))
    middles = (edges[:-1] + edges[1:]) / 2
    return [(round(float(m), 3), float(100 * c / len(readings))) for m, c in zip(middles, counts, strict=True)]


def summary(pairs: PairList) -> dict:
    """Return what was found, for programs: counts, unit, median, range, what was taken for granted, the pairing."""
    info = pairs.info
    depths = np.concatenate([pair.depth[pair.depth > 0][:: max(1, pair.depth.size // 20_000)] for pair in pairs])
    return {
        "pairs": len(pairs),
        "unit": info.unit,
        "units_in_a_metre": {kind: round(1 / scale, 6) for kind, scale in info.scale.items()},
        "inverse": info.inverse,
        "median": round(info.median, 4),
        "near": round(float(np.quantile(depths, 0.01)), 4),
        "far": round(float(np.quantile(depths, 0.99)), 4),
        "messages": list(info.messages),
        "warnings": list(info.warnings),
        "histogram": histogram(pairs),
        "pairing": [{"photo": pair.name, "depth": pair.depth_name, "by": pair.by} for pair in pairs],
    }


def describe_pairs(pairs: PairList) -> str:
    """Return what was found as Markdown: warnings first, then unit and median, then the pairing."""
    found = summary(pairs)
    unit = "m" if found["unit"] == METRES else "(no unit)"
    head = (
        f"**{plural(len(pairs), 'pair')}**, median depth **{found['median']:.2f} {unit}**, "
        f"from {found['near']:.2f} to {found['far']:.2f} {unit}."
    )
    lines = [f"⚠ {text}" for text in found["warnings"]] + [head, *found["messages"]]
    more = f"\n\nand {len(pairs) - LISTED} more." if len(pairs) > LISTED else ""
    return "\n\n".join([*lines, _pairing(pairs)]) + more


def _pairing(pairs: PairList) -> str:
    """Return the first pairs as a table; the folder that all lie in is said once above it."""
    folder = _common_folder([name for pair in pairs for name in (pair.name, pair.depth_name)])
    rows = [f"| {pair.name[len(folder) :]} | {pair.depth_name[len(folder) :]} | {pair.by} |" for pair in pairs[:LISTED]]
    table = "\n".join(["| photo | depth map | paired by |", "|---|---|---|", *rows])
    return f"All lie in {folder}.\n\n{table}" if folder else table


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that all paths lie in, with a slash at its end; "" for none."""
    parents = [PurePosixPath(name).parent.parts for name in names]
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*parents, strict=False))]
    return "/".join(shared) + "/" if shared else ""


def pictures(pairs: PairList) -> list[tuple[np.ndarray, str]]:
    """Draw photo and depth of a few pairs, spread over the set, all depth on one scale of colours."""
    chosen = pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN]
    readings = np.concatenate([pair.depth[pair.depth > 0][::7] for pair in chosen])
    look = Look(*natural_range(readings[:, None]), "inferno", False)
    drawn = []
    for pair in chosen:
        drawn.append((fit_within(load_photo(pair.image).rgb, PICTURE_SIDE), PurePosixPath(pair.name).name))
        depth = fit_within(with_holes(pair.depth, look), PICTURE_SIDE)
        drawn.append((depth, f"{PurePosixPath(pair.depth_name).name}, bright is far"))
    return drawn


def with_holes(depth: np.ndarray, look: Look) -> np.ndarray:
    """Colour a true depth map (H, W), black where there is no reading: (H, W, 3) uint8."""
    colours = colourise(shade(depth, look), look.colour_map)
    return np.where((depth > 0)[..., None], colours, 0).astype(np.uint8)
