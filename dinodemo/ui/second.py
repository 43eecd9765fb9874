"""Before and after: every tab draws its result a second time with another backbone, beside the first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gradio as gr

from ..tokens import place_of
from . import attention_view, compare_view, depth_view, pca_view, segmentation_view
from .depth_probes import Own, ProbeShelf
from .errors import friendly
from .header import Header
from .segmentation_search import Found, fit, gather
from .services import ENGINE_QUEUE, Services, made_with_name


def second_image(elem_id: str, height: int | None = None) -> gr.Image:
    """Make the picture that stands beside a tab's own, hidden while there is no second backbone."""
    return gr.Image(format="jpeg", interactive=False, visible=False, buttons=["fullscreen"], height=height,
                    elem_id=elem_id)  # fmt: skip


def beside(header: Header, first: gr.components.Component, second: gr.components.Component, make: Callable,
           inputs: Sequence) -> None:  # fmt: skip
    """Fill `second` whenever `first` or the second backbone changes.

    make(backbone, *inputs) returns what `second` shows, or None while there is nothing to show.
    """

    @friendly
    def draw(backbone: str | None, *values):
        shown = make(backbone, *values) if backbone else None
        label = f"The same with {Path(backbone).name}" if backbone else ""
        return gr.update(value=shown, visible=bool(shown is not None and len(shown)), label=label)

    gr.on([first.change, header.second.change], draw, [header.second, *inputs], second, **ENGINE_QUEUE,
          show_progress="minimal", trigger_mode="always_last", api_visibility="private")  # fmt: skip


def attention_beside(services: Services, header: Header, pictures: tuple, view: gr.State, look: list) -> None:
    """Draw the overlay a second time."""

    def make(backbone: str, current, *values):
        if current is None:
            return None
        run = services.run(current.photo, backbone, current.key[1], attention=True)
        other = attention_view.View(current.photo, run.features, (backbone, current.key[1]), run.status)
        return attention_view.draw_overlay(other, attention_view.Look(*values))

    beside(header, *pictures, make, [view, *look])


def pca_beside(services: Services, header: Header, pictures: tuple, view: gr.State, look: list) -> None:
    """Colour the photos a second time, by a basis of that backbone's own."""

    def make(backbone: str, current, *values):
        if current is None:
            return None
        chosen = pca_view.Look(*values)
        found = tuple(services.run(photo, backbone, current.key[1]).features for photo in current.photos)
        other = pca_view.View(current.photos, found, (backbone, current.key[1]), "")
        return pca_view.draw(other, chosen, pca_view.fit(other, chosen, None))

    beside(header, *pictures, make, [view, *look])


def segmentation_beside(services: Services, header: Header, pictures: tuple, found: gr.State, drawing: list,
                        look: list) -> None:  # fmt: skip
    """Search the selected photo a second time, with the references as they are now."""

    def make(backbone: str, resolution: float, current: Found | None, kept, painted, photo, name, *values):
        if current is None or not current.results:
            return None
        segmenter = fit(services, *gather(kept, painted, photo, name), backbone, int(resolution))
        chosen = current.results[current.selected]
        result = replace(chosen, segmentation=segmenter.predict(chosen.photo), hidden=frozenset())
        return segmentation_view.draw_result(segmentation_view.look_at(result, segmentation_view.Look(*values)))

    beside(header, *pictures, make, [header.resolution, found, *drawing, *look])


def depth_beside(shelf: ProbeShelf, header: Header, outputs, memory, inputs) -> None:
    """Estimate the depth a second time, with the newest probe that fits that backbone."""

    def make(backbone: str, current, probes: Own, resolution: float, flip: bool, guided: bool, *values):
        if current is None:
            return None
        keys = [key for _, key in shelf.choices(backbone, probes) if not key.startswith("dpt:")]
        if not keys:
            raise ValueError(f"no depth probe fits {Path(backbone).name}; choose it above and train one to compare")
        found = shelf.estimate(keys[0], probes, current.photo, backbone, int(resolution), bool(flip), bool(guided))
        other = depth_view.View(current.photo, found.depth, found.unit, found.name, found.note,
                                made_with_name(backbone), (), current.point)  # fmt: skip
        return depth_view.draw_depth(other, depth_view.Look(*values))

    settings = [header.resolution, inputs.flip, inputs.guided, *inputs.look()]
    beside(header, outputs.picture, outputs.second, make, [memory.view, memory.own, *settings])


def compare_beside(services: Services, header: Header, pictures: tuple, pair: gr.State, placeless: gr.Checkbox,
                   look: list) -> None:  # fmt: skip
    """Match the two photos a second time."""

    def make(backbone: str, current, without_place: bool, resolution: float, *values):
        if current is None:
            return None
        resolution = int(resolution)
        found = tuple(services.run(photo, backbone, resolution).features for photo in current.photos)
        basis = place_of(services.pool.get(backbone), resolution) if without_place else None
        other = compare_view.Pair(current.photos, found, basis, ())
        return compare_view.draw_lines(other, compare_view.Look(*values))

    beside(header, *pictures, make, [pair, placeless, header.resolution, *look])

