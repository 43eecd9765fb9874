"""The components of the Depth tab's first page, and what one person's session remembers."""

from dataclasses import dataclass

import gradio as gr

from ...web.comparison import comparison_image
from ...web.components import (
    DROP_HEIGHT,
    PhotoInput,
    colour_map_picker,
    download_button,
    example_gallery,
    option_control,
    photo_input,
)
from ...web.events import PICTURE
from ...web.examples import Opening
from ...web.services import Services
from . import draw
from .draw import Look, View
from .options import FAR, FLIP, FOV, GUIDED, INVERSE_COLOURS, METRES, NEAR

OPENING = "room_wine.jpg"
EMPTY = "Drop a photo, or take an example."


@dataclass(frozen=True)
class Inputs:
    """The components of the left side."""

    photo: PhotoInput
    examples: gr.Gallery
    opening: Opening
    probe: gr.Dropdown
    other: gr.Dropdown
    flip: gr.Checkbox
    guided: gr.Checkbox
    metres: gr.Checkbox
    loader: gr.File
    near: gr.Slider
    far: gr.Slider
    colour_map: gr.Dropdown
    inverse: gr.Checkbox
    card: gr.Markdown

    def settings(self) -> list:
        """Return what the depth depends on besides photo, probes and the header."""
        return [self.flip, self.guided, self.metres]

    def look(self) -> list:
        """Return what only the drawing depends on."""
        return [self.near, self.far, self.colour_map, self.inverse]


@dataclass(frozen=True)
class Outputs:
    """The components of the right side."""

    message: gr.Markdown
    picture: gr.Image
    comparison: gr.Image
    bar: gr.HTML
    reading: gr.Markdown
    status: gr.Markdown
    slider: gr.ImageSlider
    model: gr.Model3D
    fov: gr.Slider
    camera: gr.Markdown
    space: gr.Tab
    compared: gr.Image
    differ: gr.Markdown

    def drawn(self) -> list:
        """Return what is drawn anew when only the look changes."""
        return [
            self.message,
            self.picture,
            self.bar,
            self.reading,
            self.slider,
            self.compared,
            self.differ,
            self.camera,
        ]


@dataclass(frozen=True)
class Memory:
    """A person's state: what is shown, what it is compared with, and the probes of one's own."""

    view: gr.State
    other: gr.State
    own: gr.State


def build_inputs(services: Services, ready: list[tuple[str, str]]) -> Inputs:
    """Build the left side: photo, probes, settings, the probe's card."""
    photo = photo_input("Photo", "depth-photo", height=DROP_HEIGHT)
    examples = example_gallery("depth-examples")
    opening = Opening.of(services, OPENING)
    probe = gr.Dropdown(ready, value=ready[0][1] if ready else None, label="Probe", elem_id="depth-probe")
    metres = option_control(METRES, elem_id="depth-metres", info="For pictures unlike those that the probe knows.")
    with gr.Row():
        near = option_control(NEAR, elem_id="depth-near", min_width=120)
        far = option_control(FAR, elem_id="depth-far", min_width=120)
    with gr.Row():
        colour_map = colour_map_picker()
        inverse = option_control(INVERSE_COLOURS, min_width=140, elem_id="depth-inverse")
    with gr.Accordion("More settings", open=False):
        other = gr.Dropdown([("None", ""), *ready], value="", label="Compare with", elem_id="depth-other")
        with gr.Row():
            flip = option_control(FLIP, min_width=140, elem_id="depth-flip")
            guided = option_control(GUIDED, min_width=140, elem_id="depth-guided")
    with gr.Accordion("Load a probe of your own, or a published head", open=False):
        loader = gr.File(label="Probe (.safetensors, or Meta's .pth)", height=110, elem_id="depth-load")
    with gr.Accordion("About this probe", open=True):
        card = gr.Markdown(elem_id="depth-card")
    look = (near, far, colour_map, inverse)
    return Inputs(photo, examples, opening, probe, other, flip, guided, metres, loader, *look, card)


def build_outputs(memory: Memory, inputs: Inputs) -> Outputs:
    """Build the right side: depth, photo and depth, space; downloads."""
    message = gr.Markdown(elem_id="depth-message")
    with gr.Tabs():
        with gr.Tab("Depth"):
            with gr.Row():
                picture = gr.Image(
                    label="Depth: click to read a point",
                    elem_id="depth-picture",
                    elem_classes="main-picture low",
                    scale=2,
                    **PICTURE,
                )
                comparison = comparison_image("depth-second")
            bar = gr.HTML(elem_id="depth-bar", padding=False)
            reading = gr.Markdown(elem_id="depth-reading")
            compared = gr.Image(label="The other probe", height=360, elem_id="depth-compared", visible=False, **PICTURE)
            differ = gr.Markdown(elem_id="depth-differ")
        with gr.Tab("Photo and depth"):
            slider = gr.ImageSlider(
                label="Drag the handle: photo left, depth right",
                max_height=520,
                format="jpeg",
                interactive=False,
                elem_id="depth-slider",
            )
        with gr.Tab("3D") as space:
            fov, camera, model = _space(memory)
    status = gr.Markdown(EMPTY, elem_id="depth-status")
    _downloads(memory, inputs)
    turned = (slider, model, fov, camera, space)
    return Outputs(message, picture, comparison, bar, reading, status, *turned, compared, differ)


def _space(memory: Memory) -> tuple[gr.Slider, gr.Markdown, gr.Model3D]:
    fov = option_control(FOV, elem_id="depth-fov", info="A wrong value bends the shape: floors tilt, corners open.")
    camera = gr.Markdown(elem_id="depth-camera")
    model = gr.Model3D(
        label="Drag to rotate, scroll to zoom",
        display_mode="point_cloud",
        height=460,
        clear_color=(0.5, 0.5, 0.5, 1.0),
        elem_id="depth-model",
        interactive=False,
    )
    with gr.Row():
        for kind, form_of, name in (
            ("ply", "points", "Download points (.ply)"),
            ("glb", "mesh", "Download surface (.glb)"),
        ):
            download_button(
                name,
                lambda view, angle, form_of=form_of: draw.space_file(need(view), angle, form_of),
                [memory.view, fov],
                f"depth-{kind}",
            )
    return fov, camera, model


def _downloads(memory: Memory, inputs: Inputs) -> None:
    with gr.Row():
        download_button(
            "Colours (.png)",
            lambda view, *look: draw.picture_file(need(view), Look(*look)),
            [memory.view, *inputs.look()],
            "depth-png",
        )
        download_button(
            "Millimetres (16-bit .png)", lambda view: draw.millimetre_file(need(view)), [memory.view], "depth-mm"
        )
        download_button("Numbers (.npy)", lambda view: draw.array_file(need(view)), [memory.view], "depth-npy")
        download_button("Facts (.json)", lambda view: draw.facts_file(need(view)), [memory.view], "depth-json")


def need(view: View | None) -> View:
    """Return the view; raises ValueError when there is none yet."""
    if view is None:
        raise ValueError("there is nothing to download yet; drop a photo first")
    return view
