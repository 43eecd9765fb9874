"""Lens tab: one to eight photos whose patches are compared under the pointer, in the browser."""

import time
from dataclasses import dataclass

import gradio as gr
import numpy as np

from ...engine.features import Features
from ...engine.provenance import made_with
from ...io.files import stem
from ...io.images import Photo, load_photo
from ...web.components import ASSETS, DROP_HEIGHT, download_button, option_control, read_photos
from ...web.errors import friendly
from ...web.events import QUIET, runs_network
from ...web.examples import example_mark, when_opened
from ...web.header import Header
from ...web.lens_view import lens_of, lens_view, with_state
from ...web.openings import photos_to_show
from ...web.services import Services, status_line
from ..base import RESOLUTION, Option
from ..tokens import positional_basis_of
from .packing import MOST_PHOTOS, pack
from .similarity import mask_above, pinned_similarity, read_state
from .standalone import page as standalone_page

PLACELESS = Option("placeless", True, "Ignore patch position", "ignore where in the picture a patch lies")
EMPTY = "Drop one to eight photos, or take an example."
OPENING = "One cup, three places"
EXAMPLES = {
    OPENING: ("coffee_cup", "segmentation/cup_by_the_stream", "segmentation/cup_and_dandelions"),
    "Cat and dogs": ("cat_chelsea", "two_dogs_balcony"),
    "Path and stream": ("mountain_path", "forest_stream"),
}


@dataclass(frozen=True, eq=False)
class View:
    """One person's photos, their features, and what was left out of the comparison."""

    photos: tuple[Photo, ...]
    features: tuple[Features, ...]
    basis: np.ndarray | None
    key: tuple[str, int, bool]  # backbone asked for, resolution, placeless
    status: str


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    view = gr.State(None, time_to_live=4 * 3600)
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=1, min_width=260):
            files = gr.File(label="Photos (1 to 8)", file_count="multiple", elem_id="lens-photos", height=DROP_HEIGHT)
            with gr.Row():
                examples = [gr.Button(name, size="sm", min_width=110) for name in EXAMPLES]
            mark = example_mark()
            placeless = option_control(
                PLACELESS, elem_id="lens-placeless", info="Otherwise patches in the same corner look alike."
            )
            stop = gr.Button("Stop", size="sm", variant="stop", visible=False, elem_id="lens-stop")
            status = gr.Markdown(EMPTY, elem_id="lens-status")
            send = gr.Button("Use the mask in Segmentation", size="sm", elem_id="lens-send")
            download_button("Share as one page (.html)", _page_file, [view], "lens-page")
        with gr.Column(scale=4, min_width=320):
            lens = lens_view("lens-view")
    _wire_photos(services, header, tab, (view, files, examples, mark, placeless, stop, status, lens))
    _wire_mask(header, view, lens, send)


def _wire_photos(services: Services, header: Header, tab: gr.Tab, parts: tuple) -> None:
    view, files, examples, mark, placeless, stop, status, lens = parts
    chosen = [placeless, header.backbone, header.resolution]
    run = runs_network(status)

    given = gr.State([])  # holds the choice of photos, so that what the tab opens with never replaces it
    opening = _example(OPENING) if services.openings.on else []
    services.openings.add(lambda backbone: _look_ahead(services, backbone))

    @friendly
    def on_files(paths: list[str] | None, choices: list, *settings):
        choices[:] = paths or []
        photos = read_photos(paths or [], MOST_PHOTOS)
        for step in analyse(services, photos, *settings):
            yield *step, photos[0] if photos else None, gr.update(visible=False)

    @friendly
    def refresh(current: View | None, *settings):
        if current is None or current.key == _key(*settings):
            yield gr.skip(), gr.skip(), gr.skip()
        else:
            yield from analyse(services, list(current.photos), *settings)

    @friendly
    def on_tab(latest: Photo | None, current: View | None, choices: list, *settings):
        photos, is_example = photos_to_show(latest, current.photos if current else (), bool(choices), opening)
        if photos is None:
            for step in refresh(current, *settings):
                yield *step, gr.skip()
            return
        for step in analyse(services, photos, *settings):  # the tab opens with something to look at
            yield (gr.skip(),) * 4 if choices else (*step, gr.update(visible=is_example))

    after = [view, status, stop]
    opened = when_opened(tab, services.start).success(
        on_tab, [header.photo, view, given, *chosen], [*after, mark], **run
    )
    events = [
        opened,
        files.change(on_files, [files, given, *chosen], [*after, header.photo, mark], **run),
        header.ready.change(refresh, [view, *chosen], after, **run),
        placeless.change(refresh, [view, *chosen], after, **run),
    ]
    for event in events:
        event.success(show, view, lens, **QUIET)
    stop.click(lambda: ("Stopped.", gr.update(visible=False)), None, [status, stop], cancels=events, **QUIET)
    for button, name in zip(examples, EXAMPLES, strict=True):
        button.click(lambda name=name: _example(name), None, files, **QUIET)


def _wire_mask(header: Header, view: gr.State, lens: gr.HTML, send: gr.Button) -> None:
    state = gr.JSON(visible=False)

    @friendly
    def on_send(pins_and_threshold, current: View | None):
        if current is None:
            raise ValueError("there are no photos yet; drop some first")
        pins, threshold = read_state(pins_and_threshold)
        maps = pinned_similarity(current.features, pins, current.basis)
        index = next(pin.photo for pin in pins if pin.sign > 0)
        photo = current.photos[index]
        mask = mask_above(maps[index], threshold, photo.size)
        return (photo, mask, time.time_ns()), gr.Tabs(selected="segmentation")

    send.click(
        on_send,
        [state, view],
        [header.painted, header.tabs],
        js=with_state("lens-view"),
        **QUIET,
    )


def analyse(services: Services, photos: list[Photo], placeless: bool, backbone: str, resolution: float):
    """Run the network on photos one by one: yields (view, status, stop button), the view only at the end."""
    if not photos:
        yield None, EMPTY, gr.update(visible=False)
        return
    key, runs = _key(placeless, backbone, resolution), []
    for i, photo in enumerate(photos, start=1):
        yield gr.skip(), f"Photo {i} of {len(photos)}: {photo.name}", gr.update(visible=len(photos) > 1)
        runs.append(services.run(photo, backbone, key[1]))
    engine = services.pool.get(backbone)
    basis = positional_basis_of(engine, key[1]) if placeless else None
    milliseconds, cached = sum(run.milliseconds for run in runs), all(run.cached for run in runs)
    status = status_line(engine, runs[-1].features, milliseconds, cached)
    view = View(tuple(photos), tuple(run.features for run in runs), basis, key, status)
    yield view, status, gr.update(visible=False)


@friendly
def show(view: View | None) -> dict:
    """Hand the photos and their tokens to the browser."""
    return lens_of(()) if view is None else lens_of(view.photos, view.features, view.basis)


def _example(name: str) -> list[str]:
    return [str(ASSETS / f"{photo}.jpg") for photo in EXAMPLES[name]]


def _look_ahead(services: Services, backbone: str) -> None:
    """See the example's photos, so that the tab opens with them."""
    for path in _example(OPENING):
        services.run(load_photo(path), backbone, RESOLUTION.default)
    positional_basis_of(services.pool.get(backbone), RESOLUTION.default)


def _key(placeless: bool, backbone: str, resolution: float) -> tuple[str, int, bool]:
    return backbone, int(resolution), bool(placeless)


def _page_file(view: View | None) -> tuple[str, bytes]:
    if view is None:
        raise ValueError("there is nothing to download yet; drop a photo first")
    title = ", ".join(photo.name for photo in view.photos)
    text = standalone_page(view.photos, pack(view.features, view.basis), title, made_with(view.features[0]))
    return f"lens-{stem(view.photos[0].name)}.html", text.encode()
