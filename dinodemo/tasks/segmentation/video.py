"""Reference masks through a short video: the references and the last frames vote on the next one.

Mean IoU in percent over the 20 videos of DAVIS 2016's validation set, the mask of the first frame given
(the offline default of version 0.1 at 518; settings were chosen on every second video, the others were held out):

                            every 3rd frame    every 6th       every 12th      8 frames a video
                              (8 a second)   (4 a second)    (2 a second)       (10 videos)
    each frame alone           68.4   67.8     66.8   67.7     64.8   66.5       83.3   67.3
    the last frames vote too   76.0   74.6     74.0   74.3     70.8   73.3       83.6   70.3
    alone, edges refined       70.3   68.7     69.1   69.1     66.9   67.6       85.4   63.9
    both, edges refined        79.6   78.0     77.5   78.4     74.5   77.1       86.8   72.9

The last column splits its own ten videos, so its second half is not blind to the choice of settings. Of frames cut
to a part without the object (its background, enlarged), 23 % (28 % held out) got a mask, and 37 % (41 %) alone.

It gains where the object changes its look or is small: soapbox 52 to 86, drift-chicane 50 to 77, drift-straight 34 to
70 at 2 frames a second. It loses where others of its kind come near: car-roundabout 87 to 78, and bmx-trees, thin and
hidden by leaves, 40 to 37. Tried without gain: votes of near patches only (fast objects leave the neighbourhood), 7
frames instead of 3, refined masks as the labels of frames, sharper labels, mixing with each frame's own score.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...io.images import Photo, as_photo
from ..tokens import flat_unit
from .match import found_again, to_match
from .reference import MIN_PRESENCE, Prediction, Segmentation
from .scores import Memory, PatchScore, foreground_labels, score_patches, spread_labels

if TYPE_CHECKING:
    from .reference import ReferenceSegmenter

REMEMBERED = 3  # frames that vote beside the references: the last ones in which the object was present
NEIGHBOURS = 10  # patches of references and frames that vote on a patch
TEMPERATURE = 0.05  # of their votes
PEAK = 0.998  # quantile that stands for a map's maximum
# frames of one video are more alike than photos, so the odds that the object is there are divided by e to this
DOUBT = 2.0


def propagate(
    segmenter: ReferenceSegmenter,
    frames: Iterable[np.ndarray | Photo],
    progress: Callable[[int, int | None], None] | None = None,
    remembered: int = REMEMBERED,
) -> Iterator[tuple[int, Segmentation]]:
    """Yield (index, segmentation) for the frames of a video in order, with the segmenter's own settings.

    Stop iterating to cancel. See `Tracker` for the method.

    Args:
        segmenter: Fitted; its references need not be of this video.
        frames: (H, W, 3) uint8 RGB or Photos, one at a time.
        progress: Called with frames done and their total after each; the total is None when `frames` has no length.
        remembered: How many frames vote.

    Raises:
        ValueError: Before the first frame, when the segmenter is not fitted or `remembered` is below 1.
    """
    if not hasattr(segmenter, "memory_"):
        raise ValueError("nothing is fitted yet; call fit with at least one reference first")
    tracker = Tracker(segmenter.memory_, remembered)
    return _follow(segmenter, tracker, frames, progress)


def _follow(segmenter, tracker: Tracker, frames, progress) -> Iterator[tuple[int, Segmentation]]:
    total = len(frames) if hasattr(frames, "__len__") else None
    for i, frame in enumerate(frames):
        photo = as_photo(frame, f"frame {i + 1}")
        prediction = Prediction(tracker.score(segmenter.tokens(photo)), photo)
        segmentation = prediction.segment(segmenter.threshold, segmenter.refine, segmenter.min_presence)
        if progress:
            progress(i + 1, total)
        yield i, segmentation


@dataclass(frozen=True, eq=False)
class _Frame:
    """Represent what is remembered of a frame of N patches.

    Attributes:
        tokens: (N, D) float32, unit length.
        labels: (N,) float32, 0 to 1, its own score.
        foreground: (N,) bool.
    """

    tokens: np.ndarray
    labels: np.ndarray
    foreground: np.ndarray


class Tracker:
    """Score the frames of a video one after the other; pure arithmetic on tokens.

    As in DINO's video protocol (Caron et al. 2021, arXiv:2104.14294, sec. 4.2.2; Jabri et al. 2020), labels spread
    from the nearest patches of the reference and of the last frames, whose labels are their own soft scores. Against
    drift the references always vote, a frame is remembered only when the object is present in it, and a patch that is
    more like a "not this" than like the object is never painted.

    memory: what `ReferenceSegmenter.fit` learned. remembered: how many frames vote, at least 1, else ValueError.
    """

    def __init__(self, memory: Memory, remembered: int = REMEMBERED):
        if remembered < 1:
            raise ValueError(f"remembered must be at least 1 frame, got {remembered}; use predict to take none along")
        self.memory = memory
        self._frames: deque[_Frame] = deque(maxlen=remembered)

    def score(self, tokens: np.ndarray) -> PatchScore:
        """Score the next frame's patches (h, w, D), and remember them when the object is present."""
        alone = score_patches(tokens, self.memory)
        flat = flat_unit(tokens)
        similarity = flat @ np.concatenate([self.memory.tokens, *(frame.tokens for frame in self._frames)]).T
        known = similarity[:, : len(self.memory.labels)]
        # the first score comes from the references alone: it keeps out what they never showed, for later frames too
        score = stretch(self._votes(similarity)) * self._allowed(known) if self._frames else alone.score.ravel()
        presence = self._presence(flat, alone.presence)
        if presence >= MIN_PRESENCE:
            self._frames.append(_Frame(flat, *foreground_labels(score)))
        return PatchScore(score.reshape(tokens.shape[:2]), alone.centred, presence)

    def _votes(self, similarity: np.ndarray) -> np.ndarray:
        """Return the mean label of the nearest patches of references and frames: (N, M) -> (N,), 0 to 1."""
        labels = np.concatenate([self.memory.labels, *(frame.labels for frame in self._frames)])
        return spread_labels(similarity, labels, NEIGHBOURS, TEMPERATURE)

    def _allowed(self, similarity: np.ndarray) -> np.ndarray:
        """Return which patches are not nearer to a "not this" than to the object: (N, M) -> (N,) bool."""
        negative = self.memory.negative
        if not negative.any():
            return np.ones(len(similarity), bool)
        return similarity[:, self.memory.foreground].max(axis=1) >= similarity[:, negative].max(axis=1)

    def _presence(self, flat: np.ndarray, alone: float) -> float:
        """Return how likely the object is there, 0 to 1: the references (alone) or the last frames recognise it."""
        if not self._frames:
            return alone
        white = self.memory.whiten(flat)
        number = np.concatenate([np.full(frame.foreground.sum(), i) for i, frame in enumerate(self._frames)])
        shown = self.memory.whiten(np.concatenate([frame.tokens[frame.foreground] for frame in self._frames]))
        either = max(alone, to_match(found_again(white, shown, number), self.memory.bound))
        return either / (either + (1 - either) * math.exp(DOUBT))


def stretch(score: np.ndarray) -> np.ndarray:
    """Stretch scores to 0 to 1 by their own range, float32: votes fade a little from frame to frame otherwise."""
    low, high = float(score.min()), float(np.quantile(score, PEAK))
    return np.clip((score - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)
