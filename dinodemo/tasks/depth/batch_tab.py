"""Depth of many photos: one after the other, with progress and stop, into one zip."""

import zipfile
from pathlib import Path

import gradio as gr

from ...engine.provenance import made_with_name
from ...io.files import plural, stem
from ...io.images import load_photo, shrink
from ...io.render import png_bytes
from ...web.components import write_download
from ...web.errors import as_message, friendly
from ...web.events import ENGINE_QUEUE
from ...web.header import Header
from . import draw
from .draw import Look, View
from .layout_tab import Inputs
from .probe_store import ProbeStore

MOST_PHOTOS = 50
THUMB_SIDE = 360


def build_batch(store: ProbeStore, header: Header, own: gr.State, inputs: Inputs) -> None:
    """Build the sub-tab; probe, colour map and the tick for metres are those of the neighbouring one."""
    files = gr.File(label=f"Photos (up to {MOST_PHOTOS})", file_count="multiple", height=160, elem_id="depth-files")
    with gr.Row():
        start = gr.Button("Estimate all", variant="primary", elem_id="depth-all")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="depth-all-stop")
    status = gr.Markdown("The probe and the colours picked in the first tab are used.", elem_id="depth-all-status")
    gallery = gr.Gallery(
        label="Depth, each over its own range",
        columns=4,
        height="auto",
        buttons=[],
        format="jpeg",
        allow_preview=True,
        object_fit="contain",
        elem_id="depth-gallery",
    )
    archive = gr.DownloadButton("Download all (.zip)", visible=False, elem_id="depth-zip")

    @friendly
    def on_start(paths, key, mine, backbone, resolution, colours, metres):
        yield from estimate_all(store, paths or [], (key, mine, backbone, int(resolution), bool(metres)), colours)

    event = start.click(
        on_start,
        [files, inputs.probe, own, header.backbone, header.resolution, inputs.colour_map, inputs.metres],
        [gallery, status, archive, stop],
        **ENGINE_QUEUE,
        api_visibility="private",
        show_progress_on=[status],
    )
    stop.click(
        lambda: ("Stopped; what was estimated is shown and can be downloaded.", gr.update(visible=False)),
        None,
        [status, stop],
        cancels=[event],
        show_progress="hidden",
        api_visibility="private",
    )


def estimate_all(store: ProbeStore, paths: list[str], chosen: tuple, colours: str):
    """Estimate photo by photo; every file is in the zip as soon as it is there. Yields gallery, status, zip, stop."""
    key, own, backbone, resolution, metres = chosen
    if not paths:
        raise ValueError("there are no photos yet; drop some first")
    if not key:
        raise ValueError("no probe is picked; pick one in the first tab")
    if len(paths) > MOST_PHOTOS:
        gr.Warning(f"The first {MOST_PHOTOS} of {len(paths)} photos are used.")
    paths, pictures = paths[:MOST_PHOTOS], []
    target = write_download("depth.zip", b"")
    with zipfile.ZipFile(target, "w"):
        pass  # an empty one is valid already
    for i, path in enumerate(paths, start=1):
        yield gr.skip(), f"Photo {i} of {len(paths)}", gr.skip(), gr.update(visible=True)
        try:
            photo = shrink(load_photo(path))
            found = store.estimate(key, own, photo, backbone, resolution, False, True, metres)
        except ValueError as error:
            gr.Warning(as_message(error).message)
            continue
        words = made_with_name(backbone, found.identity)
        view = View.of(photo, found, words)
        look = Look(*draw.natural_range(view.depth), colours, False)
        _add(Path(target), view, look, f"{i:02d}-{stem(photo.name)}")
        unit = "m" if view.unit == "metres" else "relative"
        pictures.append((draw.draw_depth(view, look, THUMB_SIDE), f"{photo.name} · {look.near} to {look.far} {unit}"))
        yield pictures, gr.skip(), gr.update(value=target, visible=True), gr.skip()
    # once more with the last word: who reads it finds the whole zip behind the button
    archive = gr.update(value=target, visible=True) if pictures else gr.skip()
    yield gr.skip(), f"{len(pictures)} of {plural(len(paths), 'photo')} done.", archive, gr.update(visible=False)


def _add(target: Path, view: View, look: Look, name: str) -> None:
    """Append a photo's files to the zip."""
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(
            f"{name}-depth.png", png_bytes(draw.draw_depth(view, look, max(view.depth.shape)), view.made_with)
        )
        archive.writestr(f"{name}-depth.npy", draw.array_file(view)[1])
        if view.unit == "metres":
            archive.writestr(f"{name}-depth-mm.png", draw.millimetre_file(view)[1])
        archive.writestr(f"{name}-depth.json", draw.facts_file(view)[1])
