"""One look at every photo: its vector, a small grey copy, and measures of its quality."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..io.images import Photo, load_image, resize, scale_to
from ..io.vectors import unit

if TYPE_CHECKING:
    from ..engine.engine import Engine

SIDE = 64  # pixels of the grey copies
QUALITY_SIDE = 256  # longest side at which quality is judged: about what the network sees
AHEAD = 16  # photos decoded before the network asks for them
QUALITY = ("sharpness", "dark", "contrast", "information")


@dataclass(frozen=True, eq=False)
class Examination:
    """What is known of n readable photos, and the unreadable ones.

    Args:
        paths: Of the readable photos.
        digests: The sha256 of each file.
        sizes: (n, 2) height and width in pixels.
        vectors: (n, D) float32, unit length.
        grey: (n, SIDE, SIDE) uint8 of the squashed photos.
        quality: (n, 4): sharpness (standard deviation of the Laplacian by that of the picture), dark (95th percentile
            of grey, 0 to 255), contrast (95th less 5th percentile), information (bits of the histogram of grey
            differences).
        problems: (path, reason) of the unreadable ones.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    sizes: np.ndarray
    vectors: np.ndarray
    grey: np.ndarray
    quality: np.ndarray
    problems: tuple[tuple[Path, str], ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _Looked:
    path: Path
    digest: str
    size: tuple[int, int]
    grey: np.ndarray
    quality: tuple[float, ...]
    photo: Photo  # squashed for the network


def examine(
    engine: "Engine",
    paths: Sequence[Path],
    resolution: int = 224,
    progress: Callable[[int, int], None] | None = None,
) -> Examination:
    """Look at every photo once; decoding overlaps the network, of each photo about 6 kB are kept.

    Args:
        engine: Computes the vectors.
        paths: The photos.
        resolution: Side of the square that the network sees, in pixels.
        progress: Called as progress(done, total) after every photo; what it raises ends the work.

    Returns:
        What was seen of each photo, and which could not be read.
    """
    looked: list[_Looked] = []
    problems: list[tuple[Path, str]] = []

    def photos() -> Iterator[Photo]:
        for outcome in _look_at_all([Path(path) for path in paths], resolution):
            if isinstance(outcome, _Looked):
                looked.append(outcome)
                yield outcome.photo
            else:
                problems.append(outcome)

    vectors = []
    for features in engine.features_batch(photos(), resolution=resolution):
        if isinstance(features, Exception):
            raise features
        vectors.append(unit(features.cls))
        if progress:
            progress(len(vectors) + len(problems), len(paths))
    width = engine.backbone.width
    return Examination(
        tuple(one.path for one in looked),
        tuple(one.digest for one in looked),
        np.array([one.size for one in looked], int).reshape(-1, 2),
        np.array(vectors, np.float32).reshape(-1, width),
        np.array([one.grey for one in looked], np.uint8).reshape(-1, SIDE, SIDE),
        np.array([one.quality for one in looked], np.float32).reshape(-1, len(QUALITY)),
        tuple(problems),
    )


def _look_at_all(paths: list[Path], resolution: int) -> Iterator[_Looked | tuple[Path, str]]:
    waiting: deque = deque()
    with ThreadPoolExecutor(2, thread_name_prefix="look") as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(_look, path, resolution))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when the caller stops early
            pool.shutdown(wait=True, cancel_futures=True)


def _look(path: Path, resolution: int) -> _Looked | tuple[Path, str]:
    try:
        data = path.read_bytes()
        rgb = load_image(data)
    except (OSError, ValueError) as error:
        return path, str(error)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    squashed = np.array(resize(rgb, (resolution, resolution)))
    digest = hashlib.sha256(data).hexdigest()
    return _Looked(path, digest, rgb.shape[:2], small, quality(grey), Photo(squashed, path.name))


def quality(grey: np.ndarray) -> tuple[float, ...]:
    """Measure a grey picture (H, W) uint8 at `QUALITY_SIDE`: the measures named in `QUALITY`."""
    small = scale_to(grey, QUALITY_SIDE)
    low, high = np.percentile(small, (5, 95))
    edges = cv2.Laplacian(small, cv2.CV_32F)
    steps = np.abs(np.diff(small.astype(np.int16), axis=1)).clip(0, 63)
    share = np.bincount(steps.ravel(), minlength=64) / max(steps.size, 1)
    information = float(-(share[share > 0] * np.log2(share[share > 0])).sum())
    return float(edges.std() / max(float(small.std()), 1.0)), float(high), float(high - low), information
