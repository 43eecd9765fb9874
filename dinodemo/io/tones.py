"""Numbers of more than 8 bits to the 256 levels of a screen: cameras, X-rays, microscopes and thermal images.

A file of 16 bits rarely says how many of them its instrument used. What the numbers say decides: the next full scale
above them (10, 12, 14, 16 bits), or the range that is there where that is a small part far from zero.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FULL_SCALES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
FAR_FROM_ZERO = 1 / 8  # of the full scale: zero is not the black of numbers that all lie above it
SMALL_RANGE = 1 / 2  # of the full scale
FEW = 0.001  # share of pixels at either end that may be hot or dead ones
FEW_STRETCH = 1 / 4  # when the others fill less of the range than this, the few are clipped
SAMPLE = 1_000_000  # numbers that the shares are estimated from
NO_READING = 1e30  # beyond it lie the "no data" marks of maps, not measurements

Blocks = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Tones:
    """A range of numbers that becomes black to white, and what to tell about it; an empty note where nothing is."""

    low: float
    high: float
    note: str = ""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return numbers as uint8 levels; what lies outside is clipped, what is no number is black."""
        scaled = values.astype(np.float32)  # a copy, changed in place: pictures may be large
        np.nan_to_num(scaled, copy=False, nan=self.low, posinf=self.high, neginf=self.low)
        scaled[np.abs(scaled) > NO_READING] = self.low
        scaled -= np.float32(self.low)
        scaled *= np.float32(255 / max(self.high - self.low, 1e-12))
        np.clip(scaled, 0, 255, out=scaled)
        return np.round(scaled, out=scaled).astype(np.uint8)


class _Numbers(NamedTuple):
    low: float
    high: float
    near: float  # the range of all but a few
    far: float
    whole: bool  # whether all are whole numbers


def find_tones(blocks: Blocks, ignore: float | None = None) -> Tones:
    """Choose the range of a picture's numbers that becomes black to white.

    Args:
        blocks: Returns the picture's numbers, block by block, each time it is called.
        ignore: A number that stands for "no reading".

    Returns:
        The same range for the same numbers, however they are cut into blocks.
    """
    numbers = _survey(blocks, ignore)
    if numbers is None:
        return Tones(0.0, 1.0, "The picture holds no numbers that could be shown")
    low, high, near, far, whole = numbers
    clipped = ""
    if near < far and far - near < FEW_STRETCH * (high - low):
        low, high = near, far
        clipped = "; a few pixels far outside are clipped"
    scale = next((top for top in FULL_SCALES if high <= top), None) if whole and low >= 0 else None
    if scale is None or (low < high and _is_small_part(low, high, scale)):
        return Tones(low, high, f"Values from {low:g} to {high:g} are stretched from black to white{clipped}")
    bits = scale.bit_length()
    said = f"Values up to {high:g} are taken as {bits} bits: {scale} is white{clipped}"
    return Tones(0.0, float(scale), "" if bits == 16 and not clipped else said)


def _is_small_part(low: float, high: float, scale: int) -> bool:
    return high < scale / 4 or (low > FAR_FROM_ZERO * scale and high - low < SMALL_RANGE * scale)


def _survey(blocks: Blocks, ignore: float | None) -> _Numbers | None:
    """Find the ends of the numbers exactly, and the ends of all but a few from evenly spaced ones."""
    low, high, count, whole = np.inf, -np.inf, 0, True
    for block in blocks():
        values = _readings(block, ignore)
        count += block.size
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            whole = whole and (values.dtype.kind in "iu" or bool((values == np.trunc(values)).all()))
    if low > high:
        return None
    step, start, sample = -(-count // SAMPLE), 0, []
    for block in blocks():
        sample.append(_readings(block.ravel()[start::step], ignore).astype(np.float64))
        start = (start - block.size) % step
    sampled = np.concatenate(sample)
    near, far = np.quantile(sampled, (FEW, 1 - FEW), method="inverted_cdf") if sampled.size else (low, high)
    return _Numbers(low, high, float(near), float(far), whole)


def _readings(values: np.ndarray, ignore: float | None) -> np.ndarray:
    values = values.ravel()
    if values.dtype.kind == "f":
        values = values[np.isfinite(values) & (np.abs(values) < NO_READING)]
    return values if ignore is None else values[values != ignore]
