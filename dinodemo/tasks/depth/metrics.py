"""Figures of a depth map against the truth, and the alignment that relative depth needs before it has any."""

from collections.abc import Iterable

import numpy as np

NAMES = ("delta1", "delta2", "delta3", "abs_rel", "rmse", "log10", "silog")
LEAST_DEPTH = 1e-3  # metres; a prediction is lifted to it before logarithms and ratios


def valid_pixels(truth: np.ndarray, low: float = 0.0, high: float = np.inf) -> np.ndarray:
    """Return which pixels hold a reading: finite, above 0, within [low, high].

    Args:
        truth: Depth (H, W).
        low: In the unit of the map.
        high: In the unit of the map.

    Returns:
        (H, W) bool.
    """
    with np.errstate(invalid="ignore"):
        return np.isfinite(truth) & (truth > 0) & (truth >= low) & (truth <= high)


def depth_metrics(depth: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare a depth map with the truth over the pixels that have a reading (Eigen et al. 2014, 4).

    Args:
        depth: (H, W), above 0.
        truth: (H, W) in the same unit, 0 or nan where there is no reading.

    Returns:
        delta1, delta2, delta3: shares of pixels (0 to 1) with max(d/t, t/d) below 1.25, 1.25^2, 1.25^3. abs_rel: mean
        |d - t| / t. rmse: in the unit of the maps. log10: mean |log10 d - log10 t|. silog: 100 sqrt(var(ln d - ln t)),
        as KITTI has it.

    Raises:
        ValueError: The maps differ in size or have no reading.
    """
    _check_sizes(depth, truth)
    valid = valid_pixels(truth)
    if not valid.any():
        raise ValueError("the true depth map holds no reading (all 0 or nan); leave the pair out")
    d, t = np.maximum(depth[valid].astype(np.float64), LEAST_DEPTH), truth[valid].astype(np.float64)
    ratio, log = np.maximum(d / t, t / d), np.log(d) - np.log(t)
    near = {f"delta{k}": float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)}
    return near | {
        "abs_rel": float(np.mean(np.abs(d - t) / t)),
        "rmse": float(np.sqrt(np.mean((d - t) ** 2))),
        "log10": float(np.mean(np.abs(log)) / np.log(10)),
        "silog": float(100 * np.std(log)),
    }


def mean_metrics(each: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every metric over pictures, so that each counts the same however many readings it has."""
    each = list(each)
    if not each:
        raise ValueError("no pictures to average over; give at least one")
    return {name: float(np.mean([metrics[name] for metrics in each])) for name in NAMES}


def align(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return depth with the scale and shift of its inverse that fit the truth best, by least squares.

    Minimises sum (a / d + b - 1 / t)^2 over pixels with a reading; the result is 1 / (a / d + b), at most ten times
    the farthest reading (where the fit passes zero). Inverse depth, because that is what relative methods are free in.
    Source: Ranftl et al. 2020, eq. 3 and 4.

    Args:
        depth: (H, W), above 0, of any scale.
        truth: (H, W), 0 or nan where there is no reading.

    Returns:
        (H, W) in the unit of the truth.

    Raises:
        ValueError: The maps differ in size or have no reading.
    """
    _check_sizes(depth, truth)
    valid = valid_pixels(truth)
    if not valid.any():
        raise ValueError("the true depth map holds no reading (all 0 or nan); leave the pair out")
    inverse = 1 / np.maximum(depth.astype(np.float64), LEAST_DEPTH)
    t = truth[valid].astype(np.float64)
    system = np.stack([inverse[valid], np.ones(len(t))], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(system, 1 / t, rcond=None)
    return (1 / np.maximum(scale * inverse + shift, 1 / (10 * t.max()))).astype(np.float32)


def _check_sizes(depth: np.ndarray, truth: np.ndarray) -> None:
    if depth.shape != truth.shape or depth.ndim != 2:
        raise ValueError(
            f"depth {depth.shape} and truth {truth.shape} must be (H, W) of one size; resize the prediction"
        )
