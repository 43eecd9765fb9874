"""What one person learned and found on the anomalies tab, and the work that makes it, step by step."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import gradio as gr
import numpy as np

from ...io.files import plural
from ...io.images import Photo, load_photo, shrink
from ...web.background import Work
from ...web.errors import as_message
from ...web.services import Services
from . import draw
from .detector import AnomalyDetector
from .draw import Checked
from .learning import MOST_GOOD

MOST_CHECKED = 200
EMPTY = "Drop a few good photos, then photos to check; or take the example."
HIDDEN = gr.update(visible=False)


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned from good photos.

    Attributes:
        detector: Fitted.
        backbone: As the header names it.
        key: Files and settings it came of.
    """

    detector: AnomalyDetector
    backbone: str
    key: tuple

    def about(self) -> str:
        """Return what was learned, and what is doubtful about it, as Markdown."""
        card = self.detector.card()
        front = " Only the object counts." if self.detector.foreground_ is not None else ""
        text = f"{card['note'][:-1]}, {card['patches']} patches at {card['resolution_used']} px.{front}"
        return "\n\n".join([text, *(f"⚠️ {warning}" for warning in card["warnings"])])


@dataclass(frozen=True, eq=False)
class Found:
    """Photos that were checked, the most anomalous first, and the one that is shown."""

    detector: AnomalyDetector
    checked: tuple[Checked, ...]
    selected: int = 0
    left_out: tuple[tuple[str, str], ...] = ()

    def at(self, index: int) -> "Found":
        """Return the same with another photo shown."""
        return replace(self, selected=index) if 0 <= index < len(self.checked) else self

    def status(self, line: float) -> str:
        """Return the counts, and what could not be read."""
        left = "".join(f"\n\nLeft out: {name}: {reason}" for name, reason in self.left_out[:10])
        return draw.counts(list(self.checked), line) + left

    def why(self, at: tuple[float, float], line: float) -> tuple[np.ndarray, str]:
        """Return picture and sentence on the good patch nearest to a point (x, y) of the shown picture."""
        one = self.checked[self.selected]
        height, width = draw.draw(one, line, "Photo").shape[:2]
        found = self.detector.nearest(one.result, at[0] / width, at[1] / height)
        good, name = self.detector.thumbs_[found.photo], self.detector.names_[found.photo]
        return draw.nearest_picture(one, good, found), draw.nearest_sentence(found, name, line)


def learn(
    services: Services,
    paths: list[str],
    before: Learned | None,
    backbone: str,
    resolution: float,
    augment: str,
    foreground: str,
) -> Iterator[tuple]:
    """Learn from good photos; yields (what was learned, words on it, stop button)."""
    key = (tuple(paths), backbone, int(resolution), augment, foreground)
    if not paths:
        if before is not None and before.key == () and before.backbone != backbone:
            words = f"The loaded set belongs to {before.detector.backbone_}; choose that backbone, or drop good photos."
            yield None, words, HIDDEN
        else:
            yield (before, gr.skip(), HIDDEN) if before and before.key == () else (None, "", HIDDEN)
        return
    if before is not None and before.key == key:
        yield gr.skip(), gr.skip(), HIDDEN
        return
    if len(paths) > MOST_GOOD:
        gr.Warning(f"The first {MOST_GOOD} of {len(paths)} good photos are used.")
    photos, left_out = read(paths[:MOST_GOOD])
    if not photos:
        raise ValueError(f"none of the good photos can be read ({left_out[0][1]}); drop others")
    for name, reason in left_out:
        gr.Warning(f"Left out: {name}: {reason}")
    detector = AnomalyDetector(services.pool.get(backbone), int(resolution), augment, foreground)
    work = Work(lambda progress: detector.fit(photos, lambda i, n: progress(i, n, f"Good photo {i} of {n}")))
    try:
        for _, message in work.steps():
            yield gr.skip(), message, gr.update(visible=True)
    finally:  # also when the event is cancelled
        work.stop()
    found = Learned(detector, backbone, key)
    yield found, found.about(), HIDDEN


def load_set(services: Services, path: str | None, backbone: str) -> tuple:
    """Load a saved set: (what was learned, words on it, stop button)."""
    if not path:
        return gr.skip(), gr.skip(), HIDDEN
    found = Learned(AnomalyDetector.load(path, services.pool.get(backbone)), backbone, ())
    return found, found.about(), HIDDEN


def check(services: Services, learned: Learned | None, paths: list[str], before: Found | None) -> Iterator[tuple]:
    """Check photo by photo; yields (what was found, status, stop button)."""
    if learned is None or not paths:
        yield None, EMPTY if learned is None else "Now drop photos to check.", HIDDEN
        return
    if len(paths) > MOST_CHECKED:
        gr.Warning(f"The first {MOST_CHECKED} of {len(paths)} photos are checked.")
    paths, checked, left_out = paths[:MOST_CHECKED], [], []
    for i, path in enumerate(paths, start=1):
        yield gr.skip(), f"Checking photo {i} of {len(paths)}", gr.update(visible=True)
        try:
            photo = load_photo(path)
            small = shrink(photo)
            checked.append(Checked(small, path, photo.size, sized(learned.detector, small, photo.size)))
        except ValueError as error:
            left_out.append((path.rsplit("/", 1)[-1], as_message(error).message))
            continue
        yield Found(learned.detector, tuple(draw.ranked(checked)), 0, tuple(left_out)), gr.skip(), gr.skip()
    found = Found(learned.detector, tuple(draw.ranked(checked)), 0, tuple(left_out))
    yield found, f"{plural(len(checked), 'photo')} checked.", HIDDEN


def accept(services: Services, learned: Learned | None, found: Found | None) -> Iterator[tuple]:
    """Remember the shown photo as good and score all again; yields what `learn` and then `check` yield."""
    if learned is None or found is None or not found.checked:
        raise ValueError("there is no checked photo yet; drop good photos and photos to check first")
    chosen = found.checked[found.selected]
    detector = copy.copy(learned.detector).add(chosen.photo)
    now, again = replace(learned, detector=detector), []
    for i, one in enumerate(found.checked, start=1):
        yield *[gr.skip()] * 3, f"Checking photo {i} of {len(found.checked)} again", gr.update(visible=True)
        again.append(replace(one, result=sized(detector, one.photo, one.size)))
    ranked = draw.ranked(again)
    at = next(i for i, one in enumerate(ranked) if one.path == chosen.path)
    yield now, now.about(), Found(detector, tuple(ranked), at, found.left_out), "Checked again.", HIDDEN


def sized(detector: AnomalyDetector, photo: Photo, size: tuple[int, int]):
    """Score a photo that was shrunk for the session; its map has the original's size (H, W)."""
    return replace(detector.predict(photo), image_size=size)


def read(paths: list[str]) -> tuple[list[Photo], list[tuple[str, str]]]:
    """Read uploads; returns photos, and (name, reason) of those that cannot be read."""
    photos, left_out = [], []
    for path in paths:
        try:
            photos.append(shrink(load_photo(path)))
        except ValueError as error:
            left_out.append((path.rsplit("/", 1)[-1], str(error)))
    return photos, left_out
