"""What is shown of a training: charts, held-out pictures beside the truth with their errors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...io.images import fit_within, load_photo
from ...io.render import colourise
from .draw import Look, natural_range, shade
from .metrics import align
from .survey import PICTURE_SIDE, with_holes
from .upsample import to_pixels

if TYPE_CHECKING:  # it needs torch, which is loaded only once the page is served
    from . import DepthProbe, RGBDPair

SHOWN = 4  # held-out pictures
CURVES = {"rmse": "RMSE", "abs_rel": "AbsRel", "delta1": "delta1"}
MOST_ERROR = 0.5  # relative; the brightest of the error map


def rows_of(curve: Sequence[dict], loss: bool) -> pd.DataFrame:
    """Return the curve as a table of epoch (whole), curve, value: the loss, or the metrics on held-out pairs."""
    wanted = {"loss": "loss"} if loss else CURVES
    points = [
        (int(row["epoch"]), label, float(row[key]))
        for row in curve
        for key, label in wanted.items()
        if row.get(key) is not None
    ]
    return pd.DataFrame(points, columns=["epoch", "curve", "value"])


def bars(histogram: Sequence[tuple[float, float]]) -> pd.DataFrame:
    """Return a histogram as a table of depth and percent."""
    return pd.DataFrame(histogram, columns=["depth", "percent"])


def held_out_pictures(probe: "DepthProbe", engine, pairs: "Sequence[RGBDPair]") -> list[tuple[np.ndarray, str]]:
    """Draw photo, truth, estimate and error of a few held-out pairs, depth in the truth's range.

    Relative depth is aligned with the truth first; the error is |d - t| / t.
    """
    pictures = []
    for i in probe.held_out_[:: max(1, len(probe.held_out_) // SHOWN)][:SHOWN]:
        photo, truth = load_photo(pairs[i].image), np.asarray(pairs[i].depth)
        depth = to_pixels(probe.predict(engine, photo), truth.shape)
        if probe.unit_ == "relative":
            depth = align(depth, truth)
        known = truth > 0
        look = Look(*natural_range(truth[known][:, None]), "inferno", False)
        error = np.where(known, np.abs(depth - truth) / np.where(known, truth, 1), 0)
        wrong = np.where(known[..., None], colourise(np.clip(error / MOST_ERROR, 0, 1), "viridis"), 0).astype(np.uint8)
        for picture, caption in (
            (photo.rgb, pairs[i].name),
            (with_holes(truth, look), f"truth, {look.near} to {look.far}"),
            (colourise(shade(depth, look), look.colour_map), "estimate"),
            (wrong, f"error, {100 * float(np.mean(error[known])):.0f} % in the mean"),
        ):
            pictures.append((fit_within(picture, PICTURE_SIDE), caption))
    return pictures
