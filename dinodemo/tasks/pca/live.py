"""The numbers behind the tab's pictures, for a browser that redraws them itself. No Gradio."""

import base64
import secrets
from dataclasses import asdict

import numpy as np

from ...io.images import fit_within
from ...io.render import jpeg_url
from .basis import PatchPCA, fit_pca, otsu_threshold
from .draw import SHOWN_SIDE, Look, View, sentences

MOST_BYTES = 8_000_000  # of photos and numbers together; beyond, the server draws
KEPT_AXES = 128  # of all patches, in which a browser fits the colours; the rest moved no colour by over 0.012
LEVELS = 32767  # of a number that is sent


def live_value(
    view: View | None,
    look: Look,
    pca: PatchPCA | None = None,
    loaded: bool = False,
    captions: tuple[str, ...] = (),
    most_bytes: int = MOST_BYTES,
) -> dict:
    """Return what `web/live/colours.js` needs to draw the tab's pictures with any other look.

    Args:
        view: The photos and their features; None empties the value.
        look: The controls as they are.
        pca: The basis in use.
        loaded: Whether it came from a file: then it stays. Else the browser fits one for every other foreground.
        captions: Of the pictures as the server drew them.
        most_bytes: Of photos and numbers together.

    Returns:
        `maps` describes each photo; it is empty, and `server` true, where there is too much to send. `version` is never
        given twice, not even after a restart of the server: a page that was left open would take new values for those
        that it has.
    """
    start: dict = {"version": secrets.token_hex(8), "maps": [], "server": False, "target": "#pca-pictures"}
    if view is None or pca is None:
        return start
    value = {**start, "captions": list(captions)}
    photos = [jpeg_url(fit_within(photo.rgb, SHOWN_SIDE)) for photo in view.photos]
    patches = np.concatenate([f.patches.reshape(-1, f.patches.shape[-1]) for f in view.features])
    count = len(pca.components_) if loaded else min(KEPT_AXES, *patches.shape)
    numbers = len(patches) * (2 * count + 8) + 2 * count * patches.shape[1]
    if sum(map(len, photos)) + numbers * 4 / 3 > most_bytes:  # base64 makes four letters of three bytes
        return {**value, "server": True}
    return {
        **value,
        "maps": _maps(view, start["target"]),
        "photos": photos,
        "basis": _fixed(pca, patches) if loaded else _free(pca, patches, count),
        "words": sentences(view, pca, loaded),
        "look": asdict(look),
    }


def undrawn(look: Look) -> dict:
    """Return the value while the server alone can say what there is to draw."""
    return {**live_value(None, look), "server": True}


def _maps(view: View, target: str) -> list[dict]:
    """Describe each photo: its grid, and which of all patches is its first."""
    ends = np.cumsum([f.grid[0] * f.grid[1] for f in view.features]).tolist()
    return [
        {"target": target, "grid": list(f.grid), "start": start, "name": photo.name}
        for photo, f, start in zip(view.photos, view.features, [0, *ends[:-1]], strict=True)
    ]


def _fixed(pca: PatchPCA, patches: np.ndarray) -> dict:
    """Describe the patches (n, D) by a basis that stays."""
    rows, scales = _whole_numbers((patches - pca.mean_) @ pca.components_.T)
    kept = {
        "low": pca.low_.tolist(),
        "high": pca.high_.tolist(),
        "ratios": pca.explained_variance_ratio_.tolist(),
        "threshold": pca.threshold_,
    }
    return {"rows": rows, "scales": scales, "first": _text(pca.separate(patches), "<f4"), "fixed": kept}


def _free(pca: PatchPCA, patches: np.ndarray, count: int) -> dict:
    """Describe the patches (n, D) so that a basis can be fitted on any part of them."""
    whole, first = fit_pca(patches, count), pca.separate(patches)
    rows, scales = _whole_numbers((patches - whole.mean_) @ whole.components_.T)
    return {
        "rows": rows,
        "scales": scales,
        "first": _text(first, "<f4"),
        "energy": _text(np.square(patches - whole.mean_).sum(axis=1), "<f4"),
        "axes": _text((whole.components_.T * LEVELS).round(), "<i2"),
        "automatic": otsu_threshold(first),
        "fixed": None,
    }


def _whole_numbers(rows: np.ndarray) -> tuple[str, list[float]]:
    """Write (n, count) values as whole numbers of 16 bits; returns them and what one is worth, column by column."""
    scales = np.maximum(np.abs(rows).max(axis=0) / LEVELS, 1e-30)
    return _text((rows / scales).round(), "<i2"), scales.tolist()


def _text(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()
