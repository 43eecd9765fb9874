"""Segmentation tab: mark an object on a reference photo, find it on others."""

from dataclasses import replace

import gradio as gr
import numpy as np

from ...io.images import DISPLAY_SIDE, Photo, fit_within, load_photo, shrink
from ...web.comparison import wire_comparison
from ...web.components import ASSETS
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, QUIET
from ...web.examples import example_mark, when_opened
from ...web.header import Header
from ...web.memory import remember
from ...web.painter import outline_value, painter_value
from ...web.services import Services
from ...web.use_photo import use_photo_menu
from ..base import RESOLUTION
from ..segmentation_head.tab import build_head_tab
from . import draw
from .draw import Look, Reference
from .masks import read_mask_file
from .reference_tab import ReferenceParts, reference_parts, wire_masks, wire_reference
from .references import DEFAULT_NAME, fit
from .results_tab import EMPTY, ResultParts, answer_no, answer_yes, result_parts, selected_photo, show_all, wire_results
from .search_tab import Answers, Asked, Found, gather, search
from .video_tab import build_video_tab

EXAMPLE = ASSETS / "segmentation"
PHOTO = "coffee_cup.jpg"
TARGETS = ("segmentation/cup_by_the_stream.jpg", "segmentation/cup_and_dandelions.jpg", "mountain_path.jpg")
EXAMPLE_SHOWN = "example"


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the sub-tabs: find by reference, follow through a video, and train a head on what was painted."""
    with gr.Tabs():
        with gr.Tab("Find by reference", id="seg-find-tab"):
            references = _build_find_tab(services, header, tab, page)
        with gr.Tab("In a video", id="seg-video-tab"):
            build_video_tab(services, header, references.drawing())
        with gr.Tab("Train a head", id="seg-head-tab"):
            build_head_tab(services, header, references.references)


def _build_find_tab(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> ReferenceParts:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            mark = example_mark()
            reference = reference_parts()
            example = gr.Button("Try the example: find this cup", size="sm", elem_id="seg-example")
        with gr.Column(scale=1, min_width=320):
            result = result_parts()
            with result.question:
                use_photo_menu(header, ("attention", "depth", "retrieval"), selected_photo, [result.found], "seg-use")
            pictures = (result.picture, result.comparison)
            compare_segmentation(services, header, pictures, result.found, reference.drawing(), result.look())
    remember(page, "segmentation", [result.opacity, result.view])
    wire_reference(services, header, reference)
    wire_masks(reference)
    loaded = _wire_example(reference, result, example)
    _wire_painted(header, reference)
    asked = _wire_opening(services, header, tab, reference, result, mark)
    _wire_search(services, header, reference, result, (loaded, asked.change))
    wire_results(result)
    return reference


def _wire_example(reference: ReferenceParts, result: ResultParts, example: gr.Button):
    """Wire the example; returns what to listen to once it is loaded."""

    @friendly
    def load_example():
        painter, targets, rest = example_values()
        return str(ASSETS / PHOTO), *painter, *rest, targets

    filled = [reference.photo, reference.painter, reference.current, reference.opened, result.answers]
    return example.click(load_example, None, [*filled, reference.outline, result.targets], **QUIET).success


def example_values() -> tuple[tuple, list[str], tuple]:
    """Return what the example fills in: (painter, photo), targets, (uploaded mask, answers, outline)."""
    photo, mask = _example()
    return (painter_value(photo, mask), photo), _targets(), (None, Answers(), outline_value(None))


def _example() -> tuple[Photo, np.ndarray]:
    photo = load_photo(ASSETS / PHOTO)
    return photo, read_mask_file(EXAMPLE / "cup_mask.png", photo)


def _targets() -> list[str]:
    return [str(ASSETS / name) for name in TARGETS]


def _wire_opening(
    services: Services, header: Header, tab: gr.Tab, reference: ReferenceParts, result: ResultParts, mark: gr.Markdown
) -> gr.State:
    """Open with the photo of another tab, else with the example; returns a state that changes to ask for a search."""
    given = gr.State([])  # holds something once the person has put something into this tab
    shown, asked = gr.State(""), gr.State(0)  # what the tab opened with: a photo's digest, or EXAMPLE_SHOWN
    emptied = [result.targets, result.found, result.gallery, result.picture, result.status, mark, shown]
    nothing = gr.skip()
    empty: tuple = (None, None, [], None, EMPTY, gr.update(visible=False))
    services.openings.add(lambda backbone: _look_ahead(services, backbone))

    @friendly
    def on_tab(latest: Photo | None, painted: tuple | None, before: str, choices: list, count: int):
        if painted or choices or before == (latest.digest if latest else EXAMPLE_SHOWN):
            return [nothing] * 14
        if latest is not None:
            painter = painter_value(latest), latest, None, Answers(), outline_value(None)
            return fit_within(latest.rgb, DISPLAY_SIDE), *painter, *empty, latest.digest, nothing
        if not services.openings.on:
            return [nothing] * 14
        painter_and_photo, targets, rest = example_values()
        kept = (nothing,) * 4
        return nothing, *painter_and_photo, *rest, targets, *kept, gr.update(visible=True), EXAMPLE_SHOWN, count + 1

    @friendly
    def on_photo(choices: list, before: str):
        choices.append(True)
        return (*empty, "") if before == EXAMPLE_SHOWN else [nothing] * len(emptied)

    filled = [reference.photo, reference.painter, reference.current, reference.opened, result.answers]
    when_opened(tab, services.start).success(
        on_tab,
        [header.photo, header.painted, shown, given, asked],
        [*filled, reference.outline, *emptied, asked],
        **QUIET,
    )
    reference.photo.upload(on_photo, [given, shown], emptied, **QUIET)
    work = [reference.painter.change, reference.mask_file.upload, result.targets.upload, reference.add.click]
    gr.on(work, lambda choices: choices.append(True), given, None, **QUIET)
    return asked


def _look_ahead(services: Services, backbone: str) -> None:
    """Search the example's photos, so that the tab opens with them."""
    photo, mask = _example()
    wanted = [Reference(photo, mask, np.zeros_like(mask), DEFAULT_NAME)]
    segmenter = fit(services, wanted, [], backbone, RESOLUTION.default)
    for path in _targets():
        segmenter.predict(shrink(load_photo(path)))


def _wire_painted(header: Header, reference: ReferenceParts) -> None:
    """Take a photo with its mask from another tab."""

    @friendly
    def on_painted(painted: tuple | None):
        if painted is None:
            return (gr.skip(),) * 4
        photo, mask, _ = painted
        return painter_value(photo, mask), photo, fit_within(photo.rgb, DISPLAY_SIDE), None

    filled = [reference.painter, reference.current, reference.photo, reference.opened]
    header.painted.change(on_painted, header.painted, filled, **QUIET)


def _wire_search(services: Services, header: Header, reference: ReferenceParts, result: ResultParts, loaded) -> None:
    @friendly
    def on_find(*values):
        drawing, (paths, tray, answers, target, backbone, resolution, *look) = values[:6], values[6:]
        wanted, others = gather(*drawing)
        also = [one for one in answers.also if one.name == wanted[0].name]
        absent = (*answers.absent, *(shrink(load_photo(path)) for path in tray or ()))
        asked = Asked(backbone, int(resolution), draw.TARGET.check(target), absent)
        yield from search(services, [*wanted, *also], others, paths or [], asked, Look(*look))

    controls = [result.targets, result.tray, result.answers, result.target, header.backbone, header.resolution]
    inputs = [*reference.drawing(), *controls, *result.look()]
    outputs = [result.found, result.gallery, result.status, result.stop]
    shown = [result.picture, result.instances, result.question, result.gallery]
    again = [
        result.no.click(answer_no, [result.found, result.answers], result.answers, **QUIET).success,
        result.yes.click(
            answer_yes, [result.found, result.answers, reference.name, *result.look()], result.answers, **QUIET
        ).success,
    ]
    events = []
    for trigger in (result.find.click, *loaded, *again):
        event = trigger(
            on_find, inputs, outputs, **ENGINE_QUEUE, api_visibility="private", show_progress_on=[result.status]
        )
        event.success(show_all, [result.found, *result.look()], shown, **QUIET)
        events.append(event)
    result.stop.click(
        lambda: ("Stopped; what was found stays.", gr.update(visible=False)),
        None,
        [result.status, result.stop],
        cancels=events,
        **QUIET,
    )
    new = [reference.photo.upload, reference.photo.clear, reference.clear.click]
    gr.on(new, lambda: Answers(), None, result.answers, **QUIET)


def compare_segmentation(
    services: Services, header: Header, pictures: tuple[gr.Image, gr.Image], found: gr.State, drawing: list, look: list
) -> None:
    """Search the selected photo a second time, with the references as they are now."""

    def make(backbone: str, resolution: float, current: Found | None, *values):
        if current is None or not current.results:
            return None
        segmenter = fit(services, *gather(*values[:6]), backbone, int(resolution))
        chosen = current.results[current.selected]
        result = replace(chosen, segmentation=segmenter.predict(chosen.photo), hidden=frozenset())
        return draw.draw_result(draw.look_at(result, draw.Look(*values[6:])))

    wire_comparison(header, *pictures, make, [header.resolution, found, *drawing, *look])
