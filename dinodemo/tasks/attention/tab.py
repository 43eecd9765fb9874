"""Attention tab: where CLS looks, head by head, and what a clicked patch attends to and resembles."""

from dataclasses import dataclass, replace

import gradio as gr

from ...io.images import DISPLAY_SIDE, Photo, load_photo
from ...web.clicks import Choice, Spot
from ...web.comparison import comparison_image, wire_comparison
from ...web.components import (
    ASSETS,
    DROP_HEIGHT,
    colour_map_picker,
    download_button,
    example_gallery,
    option_control,
    photo_input,
    wire_photo,
)
from ...web.errors import friendly
from ...web.events import LIVE, PICTURE, QUIET, Options, runs_network
from ...web.examples import Opening
from ...web.header import Header
from ...web.live_view import live_view, moved
from ...web.memory import remember
from ...web.services import Services
from ..base import OPACITY, RESOLUTION, SMOOTH
from ..tokens import patch_at
from . import draw
from .draw import Look, View
from .live import live_value
from .maps import attention_of

OPENING = "cat_chelsea.jpg"
EMPTY = "Drop a photo or choose an example to see where the model looks."
HIDDEN = gr.update(value=None, visible=False)
NOTHING: tuple = (None, HIDDEN, HIDDEN)  # the pictures without a photo
FRAME = "(head) => ({__type__: 'update', selected_index: /^[0-9]+$/.test(head) ? head - 1 : null})"


@dataclass(frozen=True)
class Controls:
    """Components that change the look, in the order of `Look`."""

    layer: gr.Slider
    head: gr.Radio
    mass: gr.Slider
    opacity: gr.Slider
    colour_map: gr.Dropdown
    smooth: gr.Checkbox

    def all(self) -> list:
        return [self.layer, self.head, self.mass, self.opacity, self.colour_map, self.smooth]


@dataclass(frozen=True)
class Outputs:
    """Components that show results."""

    overlay: gr.Image
    comparison: gr.Image
    point_attention: gr.Image
    point_cosine: gr.Image
    heads: gr.Gallery
    norms: gr.Image
    note: gr.Markdown
    status: gr.Markdown
    live: gr.HTML

    def pictures(self) -> list:
        return [self.overlay, self.point_attention, self.point_cosine, self.live]

    def all(self) -> list:
        return [*self.pictures(), self.heads, self.norms, self.note, self.status]


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    view = gr.State(None, time_to_live=4 * 3600)
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=2, min_width=320):
            photo = photo_input("Photo", "attention-photo", height=DROP_HEIGHT)
            examples = example_gallery("attention-examples")
            opening = Opening.of(services, OPENING)
            controls = _controls()
            point_x, point_y, ask = _point_controls()
        with gr.Column(scale=3, min_width=320):
            outputs = _outputs(view, controls)
            compare_attention(services, header, outputs, view, controls.all())
    services.openings.add(
        lambda backbone: services.run(load_photo(ASSETS / OPENING), backbone, RESOLUTION.default, attention=True)
    )
    remember(page, "attention", [controls.opacity, controls.colour_map, controls.smooth])
    _wire_photo(services, header, tab, view, (photo, examples, opening), controls, outputs)
    _wire_controls(header, view, controls, outputs)
    _wire_point(services, view, photo, (point_x, point_y, ask), controls, outputs)


def _controls() -> Controls:
    head = option_control(draw.head_option(6), radio=True, elem_id="head")
    with gr.Row():
        layer = option_control(draw.LAYER, elem_id="layer", min_width=160)
        mass = option_control(draw.MASS_PERCENT, elem_id="mass", min_width=160)
    with gr.Row():
        opacity = option_control(OPACITY, elem_id="opacity", min_width=140)
        colour_map = colour_map_picker()
    smooth = option_control(SMOOTH, label="Smooth", elem_id="smooth")
    return Controls(layer, head, mass, opacity, colour_map, smooth)


def _point_controls() -> tuple[gr.Slider, gr.Slider, gr.Button]:
    with gr.Accordion("Choose a patch by coordinates", open=False):
        x, y = (option_control(option, elem_id=f"point-{option.name}") for option in draw.POINT)
        return x, y, gr.Button("Show this patch", size="sm", elem_id="point-ask")


def _outputs(view: gr.State, controls: Controls) -> Outputs:
    with gr.Row():
        overlay = gr.Image(
            label="Attention. Click anywhere to see what that patch attends to",
            elem_id="attention-overlay",
            elem_classes="main-picture",
            scale=2,
            **PICTURE,
        )
        comparison = comparison_image("attention-second")
        with gr.Column(min_width=160, elem_classes="beside-picture"):
            point: Options = {**PICTURE, "visible": False, "elem_classes": "half-picture"}
            point_attention = gr.Image(label="Where the clicked patch looks", elem_id="point-attention", **point)
            point_cosine = gr.Image(label="What resembles the clicked patch", elem_id="point-cosine", **point)
    status = gr.Markdown(EMPTY, elem_id="attention-status")
    note = gr.Markdown(elem_id="attention-note")
    with gr.Row(elem_classes="late"):
        download_button("Download PNG", _picture_file, [view, *controls.all()], "attention-png")
        download_button("Download raw (.npz)", _raw_file, [view], "attention-npz")
    heads = gr.Gallery(
        label="All heads of this layer: click one to select it",
        columns=6,
        height="auto",
        buttons=[],
        allow_preview=False,
        elem_id="attention-heads",
        elem_classes="late",
        format="jpeg",
        object_fit="contain",
    )
    with gr.Accordion("Token norms", open=False, elem_classes="late"):
        norms = gr.Image(
            label="Last-layer token norms (outliers are attention sinks)",
            elem_id="attention-norms",
            height=240,
            **PICTURE,
        )
    live = live_view("attention-live", "heat.js")
    return Outputs(overlay, comparison, point_attention, point_cosine, heads, norms, note, status, live)


def _wire_photo(services, header, tab, view, given, controls, outputs) -> None:
    photo, examples, opening = given

    def take(given: Photo, before: View | None, backbone: str, resolution: float):
        return analyse(services, given, backbone, resolution, before)

    def fresh(before: View | None, backbone: str, resolution: float) -> bool:
        return before is not None and before.key == (backbone, int(resolution))

    events = wire_photo(
        photo,
        examples,
        take,
        inputs=[view, header.backbone, header.resolution],
        outputs=[view, controls.layer, controls.head],
        empty=(None, gr.skip(), gr.skip()),
        current=header.photo,
        tab=tab,
        opening=opening,
        run=runs_network(outputs.overlay),
        again=[header.ready.change],
        fresh=fresh,
    )
    for event in events:
        event.success(show_all, [view, *controls.all()], outputs.all(), **QUIET)


def _wire_controls(header: Header, view: gr.State, controls: Controls, outputs: Outputs) -> None:
    """Let the browser redraw what a new layer does not change; the server, where it cannot."""
    inputs = [view, *controls.all()]
    controls.layer.change(show_all, inputs, outputs.all(), **LIVE)
    looks = controls.all()[1:]
    moving = [header.comparison_picker, *looks]
    gr.on([control.change for control in looks], None, moving, None, js=moved("attention-live"), **QUIET)
    outputs.live.submit(show_all, inputs, outputs.all(), **LIVE)
    controls.head.change(None, controls.head, outputs.heads, js=FRAME, **QUIET)
    outputs.heads.select(select_head, None, controls.head, **LIVE)


def _wire_point(services, view, photo, point, controls, outputs) -> None:
    x, y, ask = point
    run = runs_network(outputs.point_attention)

    @friendly
    def on_click(current: View | None, event: Spot):
        if current is None:
            return gr.skip(), gr.skip(), gr.skip()
        height, width = current.photo.size
        shown = DISPLAY_SIDE / max(height, width)  # the overlay's scale
        x_shown, y_shown = event.point
        across, down = x_shown / (width * shown), y_shown / (height * shown)
        return ask_patch(services, current, across, down), round(across * 100), round(down * 100)

    @friendly
    def on_ask(current: View | None, across: float, down: float):
        if current is None:
            raise ValueError("there is no photo yet; drop one first")
        return ask_patch(services, current, across / 100, down / 100)

    inputs = [view, *controls.all()]
    outputs.overlay.select(on_click, view, [view, x, y], **run).success(
        show_pictures, inputs, outputs.pictures(), **QUIET
    )
    ask.click(on_ask, [view, x, y], view, **run).success(show_pictures, inputs, outputs.pictures(), **QUIET)


def analyse(services: Services, photo: Photo, backbone: str, resolution: float, before: View | None) -> tuple:
    """Run the network on a photo: returns the view and the updates of the layer and head controls.

    The controls stay where they were as long as the network has as many layers and heads as the one before.
    """
    run = services.run(photo, backbone, int(resolution), attention=True)
    depth, heads = attention_of(run.features).shape[:2]
    view = View(photo, run.features, (backbone, int(resolution)), run.status)
    if before is not None and attention_of(before.features).shape[:2] == (depth, heads):
        return view, gr.skip(), gr.skip()
    return view, gr.update(maximum=depth, value=depth), gr.update(choices=_head_choices(heads), value=draw.HEAD.default)


def ask_patch(services: Services, view: View, x: float, y: float) -> View:
    """Add the attention of the patch under a point (x, y from 0 to 1) to a view."""
    patch = patch_at(view.features, x, y)
    rows, _ = services.pool.get(view.key[0]).attention_rows(view.photo, patch, view.key[1])
    return replace(view, patch=patch, patch_rows=rows)


@friendly
def select_head(event: Choice) -> str:
    """Choose the head whose picture was clicked."""
    return str(event.index + 1)


@friendly
def show_all(view: View | None, *values) -> tuple:
    """Draw everything; the network is not called."""
    look = Look(*values)
    if view is None:
        return *NOTHING, live_value(None, look), [], None, "", EMPTY
    return (
        *_pictures(view, look),
        gr.update(value=draw.draw_heads(view, look), selected_index=_frame(look.head)),
        draw.draw_norms(view, look),
        draw.note(view, look),
        view.status,
    )


@friendly
def show_pictures(view: View | None, *look) -> tuple:
    """Draw what a clicked patch changes."""
    return (*NOTHING, live_value(None, Look(*look))) if view is None else _pictures(view, Look(*look))


def _pictures(view: View, look: Look) -> tuple:
    asked = view.patch is not None
    point = (gr.update(value=picture, visible=asked) for picture in draw.draw_point(view, look))
    return draw.draw_overlay(view, look), *point, live_value(view, look)


def _picture_file(view: View | None, *look) -> tuple[str, bytes]:
    return draw.picture_file(_need(view), Look(*look))


def _raw_file(view: View | None) -> tuple[str, bytes]:
    return draw.raw_file(_need(view))


def _need(view: View | None) -> View:
    if view is None:
        raise ValueError("there is nothing to download yet; drop a photo first")
    return view


def _frame(head: str) -> int | None:
    """Return which picture of the grid of heads is the chosen one."""
    return int(head) - 1 if head.isdecimal() else None


def _head_choices(heads: int) -> list[tuple[str, str]]:
    option = draw.head_option(heads)
    return list(zip(option.labels, option.choices, strict=True))


def compare_attention(services: Services, header: Header, outputs: Outputs, view: gr.State, look: list) -> None:
    """Draw the overlay a second time."""

    def make(backbone: str, current, *values):
        if current is None:
            return None
        run = services.run(current.photo, backbone, current.key[1], attention=True)
        other = View(current.photo, run.features, (backbone, current.key[1]), run.status)
        return draw.draw_overlay(other, Look(*values))

    wire_comparison(header, outputs.overlay, outputs.comparison, make, [view, *look], [outputs.live.input])
