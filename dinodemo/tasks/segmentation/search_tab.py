"""Search by reference: what was painted, and the way from references and photos to results, step by step."""

from dataclasses import dataclass

import gradio as gr
import numpy as np

from ...engine.provenance import made_with_name, short_name
from ...io.files import plural
from ...io.images import Photo, load_photo, shrink
from ...web.errors import as_message
from ...web.page_memory import PageResults
from ...web.painter import is_painted, read_drawing
from ...web.services import Services
from . import draw
from .draw import Look, Reference, Result
from .labels import MaskFile
from .match import FOUND, UNSURE
from .references import DEFAULT_NAME, MOST_TARGETS, fit


@dataclass(frozen=True)
class Found:
    """Represent one person's results, the best match first, and the words on the network that made them."""

    held: PageResults
    made_with: str
    selected: int = 0

    @property
    def results(self) -> tuple[Result, ...]:
        """Return what was found; nothing where other pages needed the memory."""
        return self.held.results


@dataclass(frozen=True)
class Answers:
    """Represent what a person said of results: photos without the object, and further references of it."""

    absent: tuple[Photo, ...] = ()
    also: tuple[Reference, ...] = ()


@dataclass(frozen=True, eq=False)
class MaskChoice:
    """Represent an uploaded mask file and what was picked of it."""

    file: MaskFile
    labels: tuple[str, ...]
    inverted: bool = False

    def mask(self) -> np.ndarray:
        """Return the mask (H, W) bool that is picked."""
        return self.file.choose(self.labels, self.inverted)


@dataclass(frozen=True)
class Asked:
    """Represent what a search is asked with besides references and photos."""

    backbone: str
    resolution: int
    target: str
    absent: tuple[Photo, ...] = ()


def read_reference(
    value: dict, photo: Photo | None, name: str, exact: bool = True, opened: MaskChoice | None = None
) -> Reference:
    """Read the painter.

    Args:
        value: of the painter.
        photo: on the painter.
        name: of the object.
        exact: take the paint as it is, do not grow it to the object.
        opened: the uploaded mask, taken as it is until something is painted over it.

    Raises:
        ValueError: when there is no photo or no paint.
    """
    if photo is None:
        raise ValueError("there is no reference photo yet; drop one and paint the object to find")
    if opened is not None and not is_painted(value):
        mask = opened.mask()
        return Reference(photo, mask, np.zeros_like(mask), clean_name(name))
    drawing = read_drawing(value, photo)
    exact = exact or not is_painted(value)
    if exact:
        return Reference(photo, drawing.with_box(), drawing.not_this, clean_name(name))
    return Reference(photo, drawing.this, drawing.not_this, clean_name(name), drawing.box, exact=False)


def clean_name(name: str | None) -> str:
    """Return a name without needless spaces; an empty one is the default's."""
    return " ".join((name or "").split()) or DEFAULT_NAME


def gather(
    kept: tuple[Reference, ...],
    value: dict,
    photo: Photo | None,
    name: str,
    exact: bool = True,
    opened: MaskChoice | None = None,
) -> tuple[list[Reference], list[Reference]]:
    """Collect the references of the object of this name, the one on the painter too, and those of other objects.

    With kept ones, an empty painter is fine. Raises ValueError when nothing is painted under that name.
    """
    try:
        references = [*kept, read_reference(value, photo, name, exact, opened)]
    except ValueError:
        if not kept:
            raise
        references = list(kept)
    wanted = [r for r in references if r.name == clean_name(name)]
    if not wanted:
        names = ", ".join(dict.fromkeys(r.name for r in references))
        raise ValueError(f"nothing is painted under the name {clean_name(name)}; painted so far: {names}")
    return wanted, [r for r in references if r.name != clean_name(name)]


def search(
    services: Services, wanted: list[Reference], others: list[Reference], paths: list[str], asked: Asked, look: Look
):
    """Fit on references of the wanted and other objects, then go target by target: yields what `_wire_search` shows."""
    if not paths:
        raise ValueError("there are no photos to search yet; drop some first")
    if len(paths) > MOST_TARGETS:
        gr.Warning(f"The first {MOST_TARGETS} of {len(paths)} photos are searched.")
    yield gr.skip(), gr.skip(), f"Learning from {plural(len(wanted), 'reference')}", gr.update(visible=True)
    segmenter = fit(services, wanted, others, asked.backbone, asked.resolution, asked.target, asked.absent)
    words = made_with_name(segmenter.backbone_, segmenter.identity_)
    results: list[Result] = []
    held = PageResults()
    paths = paths[:MOST_TARGETS]
    for i, path in enumerate(paths, start=1):
        yield gr.skip(), gr.skip(), f"Photo {i} of {len(paths)}", gr.skip()
        try:
            photo = load_photo(path)
            small = shrink(photo)
            results.append(Result(small, path, photo.size, segmenter.predict(small)))
        except ValueError as error:
            gr.Warning(as_message(error).message)
            continue
        thumb = gr.skip() if len(results) % max(1, len(results) // 8) else draw.draw_thumbs(results, look)
        services.page_memory.put(held, tuple(results), size_of)
        yield Found(held, words), thumb, f"Photo {i} of {len(paths)}", gr.skip()
    results = draw.by_match(results)
    done = summary(results, look, segmenter.backbone_)
    services.page_memory.put(held, tuple(results), size_of)
    yield Found(held, words), draw.draw_thumbs(results, look), done, gr.update(visible=False)


def size_of(result: Result) -> int:
    """Return the bytes that a result takes, nearly all in pictures of the target's size."""
    found = result.segmentation
    return result.photo.rgb.nbytes + found.mask.nbytes + found.score.nbytes


def summary(results: list[Result], look: Look, backbone: str) -> str:
    """Return on how many photos the object was found, and on how many it is unsure."""
    states = [draw.state_of(r.segmentation.presence, look.min_presence) for r in results]
    unsure = f", unsure on {states.count(UNSURE)}" if UNSURE in states else ""
    return (
        f"Found on {states.count(FOUND)} of {plural(len(results), 'photo')}{unsure}, with **{short_name(backbone)}**."
    )
