"""Depth tab: metres from one photo by a probe on frozen features; read, turn in space, compare, train."""

from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr

from ...engine.provenance import made_with_name
from ...io.images import Photo
from ...web.comparison import beside, second_image
from ...web.components import (
    PhotoInput,
    colour_map_picker,
    download_button,
    example_gallery,
    option_control,
    photo_input,
    wire_photo,
    write_download,
)
from ...web.errors import friendly
from ...web.events import LIVE, PICTURE, QUIET, runs_network
from ...web.header import Header
from ...web.memory import remember
from ...web.services import Services
from . import draw
from .batch_tab import build_batch
from .draw import Look, View
from .probe_store import Own, ProbeStore
from .training_tab import build_training

EMPTY = "Drop a photo, or take an example."
NO_PROBE = "No probe fits this backbone: train one in the next tab, load one, or choose another backbone."


@dataclass(frozen=True)
class Inputs:
    """Hold the components of the left side. The first six are what the depth depends on."""

    photo: PhotoInput
    examples: gr.Gallery
    probe: gr.Dropdown
    other: gr.Dropdown
    flip: gr.Checkbox
    guided: gr.Checkbox
    loader: gr.File
    near: gr.Slider
    far: gr.Slider
    colour_map: gr.Dropdown
    inverse: gr.Checkbox
    card: gr.Markdown

    def look(self) -> list:
        return [self.near, self.far, self.colour_map, self.inverse]


@dataclass(frozen=True)
class Outputs:
    """Hold the components of the right side."""

    picture: gr.Image
    second: gr.Image
    bar: gr.HTML
    reading: gr.Markdown
    status: gr.Markdown
    slider: gr.ImageSlider
    model: gr.Model3D
    fov: gr.Slider
    space: gr.Tab
    compared: gr.Image
    differ: gr.Markdown

    def drawn(self) -> list:
        return [self.picture, self.bar, self.reading, self.slider, self.compared, self.differ]


@dataclass(frozen=True)
class Memory:
    """Hold a person's state: what is shown, what it is compared with, and the probes of one's own."""

    view: gr.State
    second: gr.State
    own: gr.State


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the three sub-tabs: one photo, many photos, and training a probe."""
    shelf = ProbeStore(services)
    memory = Memory(gr.State(None, time_to_live=4 * 3600), gr.State(None, time_to_live=4 * 3600), gr.State(()))
    with gr.Tabs():
        with gr.Tab("Estimate", id="depth-one-tab"), gr.Row(elem_classes="work"):
            with gr.Column(scale=2, min_width=320):
                inputs = _inputs(shelf.ready(services.start.name))
            with gr.Column(scale=3, min_width=320):
                outputs = _outputs(memory, inputs)
                depth_beside(shelf, header, outputs, memory, inputs)
        with gr.Tab("Many photos", id="depth-many-tab"):
            build_batch(shelf, header, memory.own, inputs.probe, inputs.colour_map)
        with gr.Tab("Train a probe", id="depth-train-tab"):
            trained = build_training(services, header, memory.own)
    remember(page, "depth", [inputs.flip, inputs.guided, inputs.colour_map, inputs.inverse])
    choices = _wire_probes(shelf, header, page, memory, inputs, trained)
    _wire_photo(shelf, header, tab, memory, inputs, outputs, choices)
    _wire_look(memory, inputs, outputs)


def _inputs(ready: list[tuple[str, str]]) -> Inputs:
    photo = photo_input("Photo", "depth-photo", height=280)
    examples = example_gallery("depth-examples")
    probe = gr.Dropdown(ready, value=ready[0][1] if ready else None, label="Probe", elem_id="depth-probe")
    other = gr.Dropdown([("None", ""), *ready], value="", label="Compare with", elem_id="depth-other")
    with gr.Row():
        flip = option_control(draw.FLIP, min_width=140, elem_id="depth-flip")
        guided = option_control(draw.GUIDED, min_width=140, elem_id="depth-guided")
    with gr.Row():
        near = gr.Slider(0, 10, value=0, step=0.01, label="Near", elem_id="depth-near", min_width=120)
        far = gr.Slider(0, 10, value=10, step=0.01, label="Far", elem_id="depth-far", min_width=120)
    with gr.Row():
        colour_map = colour_map_picker()
        inverse = gr.Checkbox(False, label="Inverse depth (more detail nearby)", min_width=140, elem_id="depth-inverse")
    with gr.Accordion("Load a probe of your own, or a published head", open=False):
        loader = gr.File(label="Probe (.safetensors, or Meta's .pth)", height=110, elem_id="depth-load")
    with gr.Accordion("About this probe", open=True):
        card = gr.Markdown(elem_id="depth-card")
    return Inputs(photo, examples, probe, other, flip, guided, loader, near, far, colour_map, inverse, card)


def _outputs(memory: Memory, inputs: Inputs) -> Outputs:
    status = gr.Markdown(EMPTY, elem_id="depth-status")
    with gr.Tabs():
        with gr.Tab("Depth"):
            with gr.Row():
                picture = gr.Image(label="Depth: click to read a point", height=460, elem_id="depth-picture", **PICTURE)
                second = second_image("depth-second", 460)
            bar = gr.HTML(elem_id="depth-bar")
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
            fov = gr.Slider(
                20,
                120,
                value=60,
                step=1,
                label="Horizontal field of view (degrees)",
                elem_id="depth-fov",
                info="A phone's main camera has about 65. A wrong value distorts the shape.",
            )
            model = gr.Model3D(
                label="Drag to rotate, scroll to zoom",
                display_mode="point_cloud",
                height=460,
                clear_color=(0.5, 0.5, 0.5, 1.0),
                elem_id="depth-model",
                interactive=False,
            )
            with gr.Row():
                for kind, name in (("ply", "Download points (.ply)"), ("glb", "Download surface (.glb)")):
                    download_button(
                        name,
                        lambda view, angle, kind=kind: draw.cloud_file(_need(view), angle, kind),
                        [memory.view, fov],
                        f"depth-{kind}",
                    )
    with gr.Row():
        download_button(
            "Colours (.png)",
            lambda view, *look: draw.picture_file(_need(view), Look(*look)),
            [memory.view, *inputs.look()],
            "depth-png",
        )
        download_button(
            "Millimetres (16-bit .png)", lambda view: draw.millimetre_file(_need(view)), [memory.view], "depth-mm"
        )
        download_button("Numbers (.npy)", lambda view: draw.array_file(_need(view)), [memory.view], "depth-npy")
    return Outputs(picture, second, bar, reading, status, slider, model, fov, space, compared, differ)


def _wire_probes(shelf: ProbeStore, header: Header, page: gr.Blocks, memory: Memory, inputs: Inputs, trained) -> list:
    """Keep the list of probes true to backbone and own probes; returns events after which the depth may be stale."""
    pickers = [inputs.probe, inputs.other]

    def offer(backbone: str, own: Own, chosen: str | None, other: str | None, newest: bool = False):
        rows = shelf.choices(backbone, own)
        keys = [key for _, key in rows]
        fits = [key for key in keys if not key.startswith("dpt:")]
        kept = chosen if chosen in keys and not newest else (fits[0] if fits else None)
        return (
            gr.update(choices=rows, value=kept),
            gr.update(choices=[("None", ""), *rows], value=other if other in keys else ""),
        )

    @friendly
    def on_load(path: str | None, own: Own, backbone: str, other: str | None):
        from . import DepthProbe

        if path is None:
            return (gr.skip(),) * 3
        probe = DepthProbe.from_meta(path) if path.lower().endswith(".pth") else DepthProbe.load(path)
        if probe.backbone_ != backbone:
            gr.Warning(f"This probe was made for {probe.backbone_}; choose that backbone to use it.")
        own = (*own, (Path(path).stem, probe))
        return own, *offer(backbone, own, None, other, newest=True)

    asked = [header.backbone, memory.own, *pickers]
    page.load(offer, asked, pickers, **QUIET)
    changed = [
        header.ready.change(offer, asked, pickers, **QUIET),
        inputs.loader.upload(
            on_load, [inputs.loader, memory.own, header.backbone, inputs.other], [memory.own, *pickers], **QUIET
        ),
        trained(
            lambda backbone, own, chosen, other: offer(backbone, own, chosen, other, newest=True),
            asked,
            pickers,
            **QUIET,
        ),
    ]
    return [event.success for event in changed]


def _wire_photo(
    shelf: ProbeStore, header: Header, tab: gr.Tab, memory: Memory, inputs: Inputs, outputs: Outputs, choices: list
) -> None:
    settings = [inputs.probe, inputs.other, memory.own, header.backbone, header.resolution, inputs.flip, inputs.guided]
    after = [memory.view, memory.second, inputs.near, inputs.far, inputs.card, outputs.status]

    def take(given: Photo, view: View | None, second: View | None, *chosen):
        return estimate(shelf, given, view, second, *chosen)

    events = wire_photo(
        inputs.photo,
        inputs.examples,
        take,
        inputs=[memory.view, memory.second, *settings],
        outputs=after,
        empty=(None, None, gr.skip(), gr.skip(), gr.skip(), EMPTY),
        current=header.photo,
        tab=tab,
        run=runs_network(outputs.picture),
        again=[inputs.probe.input, inputs.other.input, inputs.flip.change, inputs.guided.change, *choices],
    )
    for event in events:
        event.success(show, [memory.view, memory.second, *inputs.look()], outputs.drawn(), **QUIET)


def _wire_look(memory: Memory, inputs: Inputs, outputs: Outputs) -> None:
    asked = [memory.view, memory.second, *inputs.look()]
    for control in (inputs.near, inputs.far):
        control.input(show, asked, outputs.drawn(), **LIVE)
    for choice in (inputs.colour_map, inputs.inverse):
        choice.change(show, asked, outputs.drawn(), **LIVE)
    outputs.picture.select(read_point, memory.view, memory.view, **QUIET).success(show, asked, outputs.drawn(), **QUIET)
    outputs.space.select(build_cloud, [memory.view, outputs.fov], outputs.model, api_visibility="private")
    outputs.fov.release(build_cloud, [memory.view, outputs.fov], outputs.model, **LIVE)


def estimate(
    shelf: ProbeStore,
    photo: Photo,
    view: View | None,
    second: View | None,
    key,
    other,
    own,
    backbone,
    resolution,
    flip,
    guided,
) -> tuple:
    """Estimate depth with the picked probes; what is already there is kept. Returns the updates of `after`."""
    if not key:
        return None, None, gr.skip(), gr.skip(), NO_PROBE, NO_PROBE
    settings = (backbone, int(resolution), bool(flip), bool(guided))
    first, card = _view(shelf, photo, view, key, own, settings)
    compared = _view(shelf, photo, second, other, own, settings)[0] if other else None
    if first is view:
        return first, compared, gr.skip(), gr.skip(), gr.skip(), gr.skip()
    near, far = draw.natural_range(first.depth)
    most = max(far * 1.5, 0.1)
    status = f"**{first.probe}** on **{backbone}**: {near:.2f} to {far:.2f} {'m' if first.unit == 'metres' else ''}"
    return first, compared, gr.update(maximum=most, value=near), gr.update(maximum=most, value=far), card, status


def _view(shelf: ProbeStore, photo: Photo, before: View | None, key: str, own: Own, settings: tuple) -> tuple:
    """Return the view and the probe's card as text; the view of before when nothing it depends on changed."""
    wanted = (photo.digest, key, *settings)
    if before is not None and before.key == wanted:
        return before, None
    backbone, resolution, flip, guided = settings
    found = shelf.estimate(key, own, photo, backbone, resolution, flip, guided)
    point = before.point if before is not None and before.photo.digest == photo.digest else None
    view = View(photo, found.depth, found.unit, found.name, found.note, made_with_name(backbone), wanted, point)
    return view, draw.card_text(found.card, found.note)


@friendly
def show(view: View | None, second: View | None, *values) -> tuple:
    """Draw everything but the point cloud; the network is not called."""
    if view is None:
        return None, "", "", None, gr.update(value=None, visible=False), ""
    look = Look(*values)
    picture = draw.draw_depth(view, look)
    apart = draw.difference(view, second) if second else ""
    compared = gr.update(
        value=draw.draw_depth(replace(second, point=view.point), look) if second else None,
        label=f"{second.probe}" if second else "The other probe",
        visible=bool(second),
    )
    told = draw.reading(view)
    if second and view.point:
        told += f" · {second.probe}: {draw.reading(replace(second, point=view.point)).split(' at ')[0]}"
    return picture, draw.colour_bar(look, view.unit), told, (draw.draw_photo(view), picture), compared, apart


@friendly
def read_point(view: View | None, event: gr.SelectData) -> View | None:
    """Remember the clicked point, in the photo's pixels."""
    if view is None:
        return None
    height, width = view.depth.shape
    shown = draw.draw_photo(view).shape
    x, y = (min(int(event.index[i] * size / shown[1 - i]), size - 1) for i, size in ((0, width), (1, height)))
    return replace(view, point=(x, y))


@friendly
def build_cloud(view: View | None, fov: float) -> str | None:
    """Write the point cloud that the browser shows."""
    return None if view is None else write_download(*draw.cloud_file(view, fov, "ply"))


def _need(view: View | None) -> View:
    if view is None:
        raise ValueError("there is nothing to download yet; drop a photo first")
    return view


def depth_beside(shelf: ProbeStore, header: Header, outputs, memory, inputs) -> None:
    """Estimate the depth a second time, with the newest probe that fits that backbone."""

    def make(backbone: str, current, probes: Own, resolution: float, flip: bool, guided: bool, *values):
        if current is None:
            return None
        keys = [key for _, key in shelf.choices(backbone, probes) if not key.startswith("dpt:")]
        if not keys:
            raise ValueError(f"no depth probe fits {Path(backbone).name}; choose it above and train one to compare")
        found = shelf.estimate(keys[0], probes, current.photo, backbone, int(resolution), bool(flip), bool(guided))
        other = draw.View(
            current.photo, found.depth, found.unit, found.name, found.note, made_with_name(backbone), (), current.point
        )
        return draw.draw_depth(other, draw.Look(*values))

    settings = [header.resolution, inputs.flip, inputs.guided, *inputs.look()]
    beside(header, outputs.picture, outputs.second, make, [memory.view, memory.own, *settings])
