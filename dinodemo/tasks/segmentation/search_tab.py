"""Search by reference: what was painted, and the way from references and photos to results, step by step."""

from dataclasses import dataclass

import gradio as gr

from ...io.files import plural
from ...io.images import Photo, load_photo, shrink
from ...web.errors import as_message
from ...web.painter import read_drawing
from ...web.services import Services
from . import draw
from .draw import Look, Reference, Result
from .references import DEFAULT_NAME, MOST_TARGETS, fit


@dataclass(frozen=True)
class Found:
    """Hold one person's results, and with which backbone they were made."""

    results: tuple[Result, ...]
    backbone: str
    selected: int = 0


def read_reference(value: dict, photo: Photo | None, name: str) -> Reference:
    """Read the painter; raises ValueError when there is no photo or no mask."""
    if photo is None:
        raise ValueError("there is no reference photo yet; drop one and paint the thing to find")
    drawing = read_drawing(value, photo)
    return Reference(photo, drawing.this, drawing.not_this, clean_name(name))


def clean_name(name: str | None) -> str:
    """Return a name without needless spaces; an empty one is the default's."""
    return " ".join((name or "").split()) or DEFAULT_NAME


def gather(
    kept: tuple[Reference, ...], value: dict, photo: Photo | None, name: str
) -> tuple[list[Reference], list[Reference]]:
    """Collect the references of the thing of this name, the one on the painter too, and those of other things.

    With kept ones, an empty painter is fine. Raises ValueError when nothing is painted under that name.
    """
    try:
        references = [*kept, read_reference(value, photo, name)]
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
    services: Services, wanted: list[Reference], others: list[Reference], paths: list[str], chosen: tuple, look: Look
):
    """Fit on references of the wanted and other things, then go target by target: yields what `_wire_search` shows."""
    if not paths:
        raise ValueError("there are no photos to search yet; drop some first")
    if len(paths) > MOST_TARGETS:
        gr.Warning(f"The first {MOST_TARGETS} of {len(paths)} photos are searched.")
    backbone, resolution = chosen
    yield gr.skip(), gr.skip(), f"Learning from {len(wanted)} reference(s)", gr.update(visible=True)
    segmenter = fit(services, wanted, others, backbone, int(resolution))
    results: list[Result] = []
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
        yield Found(tuple(results), backbone), thumb, f"Photo {i} of {len(paths)}", gr.skip()
    there = [r for r in results if r.segmentation.at(look.threshold, look.min_presence).any()]
    sure = sum(draw.is_sure(r) for r in there)
    unsure = f", perhaps on {len(there) - sure} more" if len(there) > sure else ""
    name = services.pool.get(backbone).backbone.name
    done = f"Found on {sure} of {plural(len(results), 'photo')}{unsure}, with **{name}**."
    yield Found(tuple(results), backbone), draw.draw_thumbs(results, look), done, gr.update(visible=False)
