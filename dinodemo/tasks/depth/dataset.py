"""Which pairs a probe learns from and which it is measured on; the range of depth that its bins cover."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...io.images import Photo
from .depthmap import same_shape
from .metrics import valid_pixels
from .readings import (
    background_message,
    direction_warning,
    find_background,
    nearer_by_floor,
    tilt,
    without_background,
)

LEAST_PAIRS = 4  # that a held-out figure needs
HELD_OUT_SHARE = 0.2
GAP_SHARE = 0.04  # of the pairs, left out between both parts of a walk: neighbouring frames show the same
LOWEST, HIGHEST = 1e-3, 1000.0
LEAST_MEDIAN, MOST_MEDIAN = 0.1, 100.0  # metres, of what people photograph
NEAR_MARGIN, FAR_MARGIN = 0.7, 1.1  # the expectation over bins never reaches the ends of their range
TAKEN_AS_NEARER = "So larger numbers were taken as nearer (disparity, inverse depth)."
RELATIVE_RANGE = (0.07, 1.1)  # of the bins for maps that `without_scale` made


def choose_held_out(count: int, groups: Sequence[str] | None = None) -> tuple[list[int], list[int]]:
    """Choose which pairs to train on and which to hold out.

    With two or more groups whole ones are held out, about a fifth of the pairs and never more than half. Else the pairs
    count as one walk in the order of time: its last fifth is held out and a gap before it belongs to neither. Fewer
    than 4 pairs, or groups of which none is small enough, hold nothing out.

    Args:
        count: Number of pairs.
        groups: A scene or a recording for each pair.

    Returns:
        Indices to train on, and indices to hold out.
    """
    if groups is not None and len(groups) != count:
        raise ValueError(f"groups must name a scene for each of the {count} pairs, got {len(groups)}")
    if count < LEAST_PAIRS:
        return list(range(count)), []
    if groups is not None and len(set(groups)) > 1:
        held = _held_groups(groups)
        return [i for i in range(count) if groups[i] not in held], [i for i in range(count) if groups[i] in held]
    held_out = max(1, round(HELD_OUT_SHARE * count))
    gap = max(1, round(GAP_SHARE * count))
    return list(range(count - held_out - gap)), list(range(count - held_out, count))


def scene_weights(groups: Sequence[str] | None) -> list[float]:
    """Return how much each pair counts so that all scenes count the same; 1 in the mean, [] without groups."""
    if not groups:
        return []
    counts = Counter(groups)
    return [len(groups) / (len(counts) * counts[group]) for group in groups]


def _held_groups(groups: Sequence[str]) -> set[str]:
    """Take groups from the last one on, until they hold a fifth of the pairs; none that would make it over a half."""
    sizes = {name: sum(group == name for group in groups) for name in dict.fromkeys(groups)}
    held: set[str] = set()
    for name in reversed(sizes):
        taken = sum(sizes[other] for other in held)
        if taken < HELD_OUT_SHARE * len(groups) and taken + sizes[name] <= len(groups) / 2:
            held.add(name)
    return held


def depth_range(depths: Sequence[np.ndarray], low: float | None, high: float | None) -> tuple[float, float]:
    """Choose the range of the bins: what is given, else the readings' 0.1 % and 99.9 % quantiles with a margin.

    Args:
        depths: Maps (H, W) in one unit, 0 or nan where there is no reading.
        low: Nearest depth, or None to take it from the readings.
        high: Farthest depth, or None.

    Returns:
        The range (low, high), in the unit of the maps.

    Raises:
        ValueError: `low` is not below `high`, or no reading lies between them.
    """
    for name, value in (("min_depth", low), ("max_depth", high)):
        if value is not None and not LOWEST <= value <= HIGHEST:
            raise ValueError(f"{name} must be {LOWEST} to {HIGHEST:.0f}, got {value}")
    if low is None or high is None:
        readings = np.concatenate([_some_readings(depth) for depth in depths])
        near, far = np.quantile(readings, (0.001, 0.999))
        low = max(LOWEST, float(near) * NEAR_MARGIN) if low is None else low
        high = min(HIGHEST, float(far) * FAR_MARGIN) if high is None else high
    if not low < high:
        raise ValueError(f"min_depth {low:g} must be below max_depth {high:g}; check both, and the unit of the depth")
    return float(low), float(high)


def without_scale(depth: np.ndarray) -> np.ndarray:
    """Return a depth map (H, W) on a scale of its own: the inverse of its near 2 % is 10, of its far 2 % is 1.

    Between them inverse depth keeps its proportions, so that maps that differ by a scale or a shift of the inverse
    become the same. 0 stays 0. The values lie in [0.1, 1].
    """
    valid = valid_pixels(depth, LOWEST, HIGHEST)
    inverse = 1 / np.where(valid, depth, 1)
    far, near = np.quantile(inverse[valid], (0.02, 0.98))
    nearness = np.clip((inverse - far) / max(near - far, 1e-9), 0, 1) if near > far else np.full(depth.shape, 0.5)
    return np.where(valid, 1 / (1 + 9 * nearness), 0).astype(np.float32)


def _some_readings(depth: np.ndarray, most: int = 20_000) -> np.ndarray:
    readings = depth[valid_pixels(depth, high=HIGHEST)]
    return readings[:: max(1, len(readings) // most)]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Depth maps that can be trained on, and what was found about them.

    Args:
        depths: (H, W) float32, 0 where there is no reading; of relative maps the median is 1.
        messages: what was left out.
        warnings: what is probably wrong.
        inverse: whether larger numbers were taken as nearer.
    """

    depths: list[np.ndarray]
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    inverse: bool = False


def prepare(
    depths: Sequence[np.ndarray], relative: bool = False, inverse: bool | None = False, what: str = "pair"
) -> Prepared:
    """Check depth maps, leave out sky and "nothing there", and turn them so that larger is farther.

    Args:
        depths: (H, W) numbers: metres, 1 / metres where `inverse`, of any scale where `relative`.
        relative: The maps have no scale.
        inverse: Larger numbers are nearer; None takes them so where the maps are `relative` and their floors say it.
        what: A map's name in errors, with its number.

    Returns:
        The maps, and what was left out of them.

    Raises:
        ValueError: A map cannot be used; named by its number.
    """
    any_scale = relative or bool(inverse)
    whole = [_check_numbers(np.asarray(depth), f"{what} {i + 1}", any_scale) for i, depth in enumerate(depths)]
    background = [] if inverse else find_background(whole)
    turned = ""
    if inverse is None and relative:
        turned = nearer_by_floor([tilt(without_background(depth, background)[0]) for depth in whole])
        inverse, background = bool(turned), [] if turned else background
    cleaned, left = [], 0
    for depth in whole:
        values, count = without_background(depth, background)
        if inverse:
            values = np.where(values > 0, 1 / np.where(values > 0, values, 1), 0).astype(np.float32)
        if relative and (values > 0).any():
            values = values / np.float32(np.median(values[values > 0]))
        beyond = values > HIGHEST
        cleaned.append(np.where(beyond, 0, values))
        left += count + int(beyond.sum())
    for i, depth in enumerate(cleaned):
        if not valid_pixels(depth, LOWEST, HIGHEST).any():
            raise ValueError(
                f"the depth of {what} {i + 1} holds no reading from {LOWEST} to {HIGHEST:.0f} m; leave it out or check "
                "its unit"
            )
    message = background_message(left, sum(depth.size for depth in whole), background)
    warnings = [direction_warning(cleaned), "" if relative else _unit_warning(cleaned)]
    if turned:
        warnings = [f"{turned} {TAKEN_AS_NEARER} inverse=False takes them as farther."]
    return Prepared(
        cleaned, (message,) if message else (), tuple(text for text in warnings if text), inverse=bool(inverse)
    )


def _unit_warning(depths: Sequence[np.ndarray]) -> str:
    middle = float(np.median([np.median(depth[depth > 0]) for depth in depths]))
    if LEAST_MEDIAN <= middle <= MOST_MEDIAN:
        return ""
    return f"The median depth is {middle:.3g} m: check that the maps are in metres."


def _check_numbers(depth: np.ndarray, name: str, any_scale: bool) -> np.ndarray:
    if depth.ndim != 2 or not depth.size or depth.dtype.kind not in "iuf":
        raise ValueError(f"the depth of {name} must be numbers (H, W), got shape {depth.shape}, {depth.dtype}")
    if (
        not any_scale
        and depth.dtype.kind in "iu"
        and depth.any()
        and (depth > HIGHEST).mean() > 0.5 * (depth > 0).mean()
    ):
        raise ValueError(
            f"the depth of {name} goes to {depth.max()}, as millimetres do; give metres: multiply by 0.001"
        )
    return depth


def check_aspect(photo: Photo, depth: np.ndarray, i: int) -> None:
    """Raise ValueError when a depth map does not have its photo's aspect.

    Args:
        photo: Upright.
        depth: (H, W) of any size.
        i: Number of the pair, for the message.
    """
    if not same_shape(depth.shape, photo.size):
        raise ValueError(
            f"pair {i + 1}: the depth map is {depth.shape[1]} x {depth.shape[0]} but {photo.name} is {photo.size[1]} x "
            f"{photo.size[0]} (upright); both must show the same view: rotate or crop one"
        )
