"""Compare tab: how alike two photos are, which parts agree, and where a clicked point is on the other."""

from dataclasses import dataclass

import gradio as gr

from ...io.images import DISPLAY_SIDE, Photo, fit_within
from ...web.clicks import Spot
from ...web.comparison import comparison_image, wire_comparison
from ...web.components import (
    ASSETS,
    DROP_HEIGHT,
    browser_copy,
    decode_upload,
    download_button,
    option_control,
    photo_input,
)
from ...web.errors import friendly
from ...web.events import LIVE, PICTURE, QUIET, runs_network
from ...web.examples import example_mark, when_opened
from ...web.header import Header
from ...web.lens_view import lens_of, lens_view
from ...web.memory import remember
from ...web.services import Services
from ..base import RESOLUTION
from ..tokens import positional_basis_of
from . import draw
from .draw import Look, Pair
from .pairs import compare

EMPTY = "Drop two photos, or take the example."
ONE = "Now drop a second photo to compare it with, or take the example."
FEW = 15  # pairs that are drawn at first, so that each can be followed
EXAMPLE = (ASSETS / "coffee_cup.jpg", ASSETS / "segmentation" / "cup_by_the_stream.jpg")


@dataclass(frozen=True)
class Parts:
    """The tab's components and the person's state."""

    photos: tuple[gr.Image, gr.Image]
    example: gr.Button
    mark: gr.Markdown
    placeless: gr.Checkbox
    look: tuple[gr.Slider, gr.Slider, gr.Radio]
    status: gr.Markdown
    lens: gr.HTML
    lines: gr.Image
    point: gr.Markdown
    sides: tuple[gr.Image, gr.Image]
    pair: gr.State


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    pair = gr.State(None, time_to_live=4 * 3600)
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                a, b = (
                    photo_input(f"{n} photo", f"compare-{n.lower()}", height=DROP_HEIGHT) for n in ("First", "Second")
                )
            example = gr.Button("Try the example: the same cup twice", size="sm", elem_id="compare-example")
            mark = example_mark()
            status = gr.Markdown(EMPTY, elem_id="compare-status")
            look, placeless = _controls()
            _downloads(pair, look)
        with gr.Column(scale=3, min_width=320):
            lens = lens_view("compare-lens")
            lines = gr.Image(
                label="Parts that agree: click a point to see it below", elem_id="compare-lines", **PICTURE
            )
            comparison = comparison_image("compare-second")
            compare_again(services, header, (lines, comparison), pair, placeless, list(look))
            point = gr.Markdown(draw.describe_point(None), elem_id="compare-point")
            with gr.Row():
                left, right = (
                    gr.Image(label=f"{n} photo: click a point", elem_id=f"compare-side-{n.lower()}", **PICTURE)
                    for n in ("First", "Second")
                )
    remember(page, "compare-pairs", [*look, placeless])
    parts = Parts((a, b), example, mark, placeless, look, status, lens, lines, point, (left, right), pair)
    _wire_photos(services, header, tab, parts)
    _wire_look(parts)


def _controls() -> tuple[tuple, gr.Checkbox]:
    """Make the controls of the look, in the order of `Look`, and whether positions are left out."""
    model = option_control(draw.MODEL.changed(default=draw.CHECKED), radio=True, elem_id="compare-model")
    with gr.Row():
        count = option_control(draw.COUNT.changed(default=FEW), elem_id="compare-count", min_width=140)
        least = option_control(draw.LEAST.changed(low=0), elem_id="compare-least", min_width=140)
    info = "Otherwise patches in the same corner match."
    placeless = option_control(draw.PLACELESS, elem_id="compare-placeless", info=info)
    return (count, least, model), placeless


def _downloads(pair: gr.State, look: tuple) -> None:
    with gr.Row():
        for label, make, name in (
            ("Drawing (.png)", draw.lines_file, "png"),
            ("Pairs (.csv)", draw.table_file, "csv"),
            ("Pairs (.json)", draw.json_file, "json"),
        ):
            download_button(
                label, lambda p, *values, make=make: make(_need(p), Look(*values)), [pair, *look], f"compare-{name}"
            )


def _wire_photos(services: Services, header: Header, tab: gr.Tab, parts: Parts) -> None:
    settings = [parts.placeless, header.backbone, header.resolution]
    run = runs_network(parts.lines)

    held = gr.State([None, None], time_to_live=4 * 3600)  # the photos that were given, in full; changed in place
    hidden, shown = gr.update(visible=False), gr.update(visible=True)
    services.openings.add(lambda backbone: _look_ahead(services, backbone))

    def on_photo(side: int):
        @friendly
        def handler(given: Photo | None, photos: list, before: Pair | None, *chosen):
            photos[side] = given
            first, second = photos
            pair = None if first is None or second is None else compare(services, (first, second), before, *chosen)
            copy = gr.skip() if given is None else browser_copy(given)
            return pair, copy, given or first or second, hidden, EMPTY if given is None else ONE

        return handler

    @friendly
    def on_example(photos: list, *chosen):
        photos[:] = [decode_upload(path) for path in EXAMPLE]
        return compare(services, tuple(photos), None, *chosen), *(str(path) for path in EXAMPLE), hidden

    @friendly
    def refresh(before: Pair | None, *chosen):
        return gr.skip() if before is None else compare(services, before.photos, before, *chosen)

    @friendly
    def on_tab(latest: Photo | None, before: Pair | None, photos: list, *chosen):
        """Return pair, first photo, mark, status: the photo of another tab, else the example."""
        if any(photos) or (latest is None and not services.openings.on):
            return refresh(before, *chosen), gr.skip(), gr.skip(), gr.skip()
        if latest is not None:
            photos[0] = latest
            return None, fit_within(latest.rgb, DISPLAY_SIDE), hidden, ONE
        found = compare(services, tuple(decode_upload(path) for path in EXAMPLE), before, *chosen)
        return (gr.skip(),) * 4 if any(photos) else (found, gr.skip(), shown, gr.skip())

    first, status = parts.photos[0], parts.status
    opened = when_opened(tab, services.start)
    events = [
        parts.example.click(on_example, [held, *settings], [parts.pair, *parts.photos, parts.mark], **run),
        header.ready.change(refresh, [parts.pair, *settings], parts.pair, **run),
        opened.success(
            on_tab, [header.photo, parts.pair, held, *settings], [parts.pair, first, parts.mark, status], **run
        ),
        parts.placeless.change(refresh, [parts.pair, *settings], parts.pair, **run),
    ]
    for side, photo in enumerate(parts.photos):
        filled = [parts.pair, photo, header.photo, parts.mark, status]
        events.append(photo.upload(on_photo(side), [photo, held, parts.pair, *settings], filled, **run))
        events.append(photo.clear(on_photo(side), [photo, held, parts.pair, *settings], filled, **QUIET))
    for event in events:
        event.success(
            show_all, [parts.pair, *parts.look], [parts.status, parts.lines, parts.point, *parts.sides], **QUIET
        )
        event.success(show_lens, parts.pair, parts.lens, **QUIET)


def _wire_look(parts: Parts) -> None:
    for control in parts.look:
        control.change(show_lines, [parts.pair, *parts.look], [parts.status, parts.lines], **LIVE)
    shown = [parts.point, *parts.sides]
    for number, side in enumerate(parts.sides):

        @friendly
        def on_click(pair: Pair | None, event: Spot, number=number):
            if pair is None:
                return None
            height, width = draw.draw_side(pair, number).shape[:2]
            x, y = event.point
            return pair.click(number, x / width, y / height)

        side.select(on_click, parts.pair, parts.pair, **QUIET).success(show_point, parts.pair, shown, **QUIET)

    @friendly
    def on_lines(pair: Pair | None, event: Spot):
        return None if pair is None else pair.click(*draw.point_on_lines(pair, *event.point))

    parts.lines.select(on_lines, parts.pair, parts.pair, **QUIET).success(show_point, parts.pair, shown, **QUIET)


@friendly
def show_all(pair: Pair | None, *look) -> tuple:
    """Draw everything of the tab from the features; the network is not called."""
    if pair is None:
        return gr.skip(), None, draw.describe_point(None), None, None
    return *show_lines(pair, *look), *show_point(pair)


@friendly
def show_lens(pair: Pair | None) -> dict:
    """Hand both photos' tokens to the browser, where the best match follows the pointer."""
    return lens_of(()) if pair is None else lens_of(pair.photos, pair.features, pair.basis)


@friendly
def show_lines(pair: Pair | None, *look) -> tuple:
    """Draw the pairs that agree."""
    return (EMPTY, None) if pair is None else (draw.summary(pair, Look(*look)), draw.draw_lines(pair, Look(*look)))


@friendly
def show_point(pair: Pair | None) -> tuple:
    """Draw the clicked point and its match."""
    return draw.describe_point(pair), *((None, None) if pair is None else (draw.draw_side(pair, s) for s in range(2)))


def _look_ahead(services: Services, backbone: str) -> None:
    """Compare the example's photos, so that the tab opens with them."""
    photos = tuple(decode_upload(path) for path in EXAMPLE)
    compare(services, photos, None, draw.PLACELESS.default, backbone, RESOLUTION.default)


def _need(pair: Pair | None) -> Pair:
    if pair is None:
        raise ValueError("there is nothing to download yet; drop two photos first")
    return pair


def compare_again(
    services: Services,
    header: Header,
    pictures: tuple[gr.Image, gr.Image],
    pair: gr.State,
    placeless: gr.Checkbox,
    look: list,
) -> None:
    """Match the two photos with the other backbone."""

    def make(backbone: str, current, without_place: bool, resolution: float, *values):
        if current is None:
            return None
        resolution = int(resolution)
        first, second = (services.run(photo, backbone, resolution).features for photo in current.photos)
        basis = positional_basis_of(services.pool.get(backbone), resolution) if without_place else None
        other = Pair(current.photos, (first, second), basis, ())
        return draw.draw_lines(other, Look(*values))

    wire_comparison(header, *pictures, make, [pair, placeless, header.resolution, *look])
