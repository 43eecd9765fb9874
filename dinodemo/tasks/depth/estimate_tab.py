"""The wiring of the Depth tab's first page: estimate, draw, read a point, turn in space, compare."""

from dataclasses import replace
from pathlib import Path

import gradio as gr

from ...engine.provenance import made_with_name
from ...io.images import Photo
from ...web.clicks import Spot
from ...web.comparison import wire_comparison
from ...web.components import wire_photo, write_download
from ...web.errors import friendly
from ...web.events import LIVE, QUIET, runs_network
from ...web.header import Header
from . import draw
from .camera import field_of_view
from .draw import Look, View
from .layout_tab import EMPTY, Inputs, Memory, Outputs
from .probe_store import Own, ProbeStore

NO_PROBE = "No probe fits this backbone: train one in the next tab, load one, or choose another backbone."


def wire_estimate(
    store: ProbeStore, header: Header, tab: gr.Tab, memory: Memory, inputs: Inputs, outputs: Outputs, choices: list
) -> None:
    """Estimate when a photo, a probe or a setting changes, and draw what came."""
    settings = [inputs.probe, inputs.other, memory.own, header.backbone, header.resolution, *inputs.settings()]
    after = [memory.view, memory.other, inputs.near, inputs.far, inputs.card, outputs.status, outputs.fov]

    def take(given: Photo, view: View | None, other_view: View | None, *chosen):
        return estimate(store, given, view, other_view, *chosen)

    again = [inputs.probe.input, inputs.other.input, *(one.change for one in inputs.settings()), *choices]
    events = wire_photo(
        inputs.photo,
        inputs.examples,
        take,
        inputs=[memory.view, memory.other, *settings],
        outputs=after,
        empty=(None, None, gr.skip(), gr.skip(), gr.skip(), EMPTY, gr.skip()),
        current=header.photo,
        tab=tab,
        opening=inputs.opening,
        run=runs_network(outputs.picture),
        again=again,
    )
    space = [outputs.model, memory.view, outputs.fov]
    for event in events:
        drawn = event.success(show, [memory.view, memory.other, outputs.fov, *inputs.look()], outputs.drawn(), **QUIET)
        drawn.success(renew_space, space, outputs.model, **QUIET)


def wire_look(memory: Memory, inputs: Inputs, outputs: Outputs) -> None:
    """Draw again when only colours, range or the point change; the network does not run."""
    asked = [memory.view, memory.other, outputs.fov, *inputs.look()]
    for control in (inputs.near, inputs.far):
        control.input(show, asked, outputs.drawn(), **LIVE)
    for choice in (inputs.colour_map, inputs.inverse):
        choice.change(show, asked, outputs.drawn(), **LIVE)
    outputs.picture.select(read_point, memory.view, memory.view, **QUIET).success(show, asked, outputs.drawn(), **QUIET)
    space = [memory.view, outputs.fov]
    outputs.space.select(build_space, space, outputs.model, api_visibility="private")
    outputs.fov.release(show, asked, outputs.drawn(), **LIVE)
    outputs.fov.release(build_space, space, outputs.model, **LIVE)


def estimate(
    store: ProbeStore,
    photo: Photo,
    view: View | None,
    other_view: View | None,
    key,
    other,
    own,
    backbone,
    resolution,
    flip,
    guided,
    metres,
) -> tuple:
    """Estimate depth with the picked probes; what is already there is kept. Returns the updates of `after`."""
    if not key:
        return None, None, gr.skip(), gr.skip(), NO_PROBE, NO_PROBE, gr.skip()
    settings = (backbone, int(resolution), bool(flip), bool(guided), bool(metres))
    first, card = _view(store, photo, view, key, own, settings)
    compared = _view(store, photo, other_view, other, own, settings)[0] if other else None
    if first is view:
        return first, compared, gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
    near, far = draw.natural_range(first.depth)
    most = max(far * 1.5, 0.1)
    unit = "m" if first.unit == "metres" else "(relative, no unit)"
    status = f"**{first.probe}** on **{backbone}**: {near:.2f} to {far:.2f} {unit}"
    ends = gr.update(maximum=most, value=near), gr.update(maximum=most, value=far)
    return first, compared, *ends, card, status, gr.skip() if _same_photo(view, photo) else field_of_view(photo)


def _same_photo(view: View | None, photo: Photo) -> bool:
    """Return whether a photo, and what its file says of the camera, is the one that is shown."""
    return view is not None and view.photo.digest == photo.digest and view.photo.focal == photo.focal


def _view(store: ProbeStore, photo: Photo, before: View | None, key: str, own: Own, settings: tuple) -> tuple:
    """Return the view and the probe's card as text; the view of before when nothing it depends on changed."""
    wanted = (photo.digest, photo.focal, key, *settings)
    if before is not None and before.key == wanted:
        return before, None
    backbone, resolution, flip, guided, metres = settings
    found = store.estimate(key, own, photo, backbone, resolution, flip, guided, metres)
    words = made_with_name(backbone, found.identity)
    view = View.of(photo, found, words, wanted)
    if before is not None and before.photo.digest == photo.digest:
        view = replace(view, point=before.point, former=before.former)
    return view, draw.card_text(found.card, found.note)


@friendly
def show(view: View | None, other_view: View | None, fov: float, *values) -> tuple:
    """Draw everything but the picture in space; the network is not called."""
    if view is None:
        return "", None, "", "", None, gr.update(value=None, visible=False), "", ""
    look = Look(*values)
    warning = f"⚠ **{view.message}**" if view.message else ""
    picture = draw.draw_depth(view, look)
    apart = draw.difference(view, other_view) if other_view else ""
    compared = gr.update(
        value=draw.draw_depth(replace(other_view, point=view.point), look) if other_view else None,
        label=f"{other_view.probe}" if other_view else "The other probe",
        visible=bool(other_view),
    )
    point_text = draw.reading(view, fov)
    if other_view and view.point:
        point_text += f" · {other_view.probe}: {draw.reading(replace(other_view, point=view.point)).split(' at ')[0]}"
    return (
        warning,
        picture,
        draw.colour_bar(look, view.unit),
        point_text,
        (draw.draw_photo(view), picture),
        compared,
        apart,
        draw.space_text(view, fov),
    )


@friendly
def read_point(view: View | None, event: Spot) -> View | None:
    """Remember the clicked point, in the photo's pixels."""
    if view is None:
        return None
    height, width = view.depth.shape
    shown = draw.draw_photo(view).shape
    x, y = (min(int(event.point[i] * size / shown[1 - i]), size - 1) for i, size in ((0, width), (1, height)))
    return replace(view, point=(x, y), former=view.point)


@friendly
def build_space(view: View | None, fov: float) -> str | None:
    """Write the points that the browser shows."""
    return None if view is None else write_download(*draw.space_file(view, fov, "points"))


def renew_space(shown: str | None, view: View | None, fov: float):
    """Write them anew for another depth, where they have been looked at before."""
    return gr.skip() if shown is None else build_space(view, fov)


def compare_depth(store: ProbeStore, header: Header, outputs, memory, inputs) -> None:
    """Estimate the depth with that backbone, with the newest probe that fits that backbone."""

    def make(backbone: str, current, probes: Own, resolution: float, flip: bool, guided: bool, metres: bool, *values):
        if current is None:
            return None
        keys = [key for _, key in store.choices(backbone, probes) if not key.startswith("dpt:")]
        if not keys:
            raise ValueError(f"no depth probe fits {Path(backbone).name}; choose it above and train one to compare")
        found = store.estimate(keys[0], probes, current.photo, backbone, int(resolution), flip, guided, metres)
        other = View.of(current.photo, found, made_with_name(backbone, found.identity), (), current.point)
        return draw.draw_depth(other, draw.Look(*values))

    settings = [header.resolution, *inputs.settings(), *inputs.look()]
    wire_comparison(header, outputs.picture, outputs.comparison, make, [memory.view, memory.own, *settings])
