"""Segmentation tab: paint a thing on a reference photo, find it on others."""

from dataclasses import dataclass, replace

import gradio as gr

from ...engine.provenance import made_with_name
from ...io.images import DISPLAY_SIDE, fit_within, load_photo
from ...web.comparison import beside, second_image
from ...web.components import ASSETS, download_button, option_control
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, LIVE, QUIET
from ...web.header import Header
from ...web.memory import remember
from ...web.painter import painter_value
from ...web.services import Services
from ..segmentation_head.tab import build_head_tab
from . import draw
from .draw import VIEWS, Look
from .masks import read_mask_file
from .reference_tab import ReferenceParts, reference_parts, wire_masks, wire_reference
from .references import MOST_TARGETS, fit
from .search_tab import Found, gather, search
from .video_tab import build_video_tab

EMPTY = "Paint an object, add photos to search, then click Find it."
EXAMPLE = ASSETS / "segmentation"


@dataclass(frozen=True)
class ResultParts:
    """Hold the components of the target side."""

    targets: gr.File
    find: gr.Button
    stop: gr.Button
    picture: gr.Image
    second: gr.Image
    gallery: gr.Gallery
    status: gr.Markdown
    instances: gr.CheckboxGroup
    threshold: gr.Slider
    opacity: gr.Slider
    view: gr.Radio
    presence: gr.Slider
    found: gr.State

    def look(self) -> list:
        return [self.threshold, self.opacity, self.view, self.presence]


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the sub-tabs: find by reference, follow through a video, and train a head on what was painted."""
    with gr.Tabs():
        with gr.Tab("Find by reference", id="seg-find-tab"):
            references = _build_find_tab(services, header, page)
        with gr.Tab("In a video", id="seg-video-tab"):
            build_video_tab(services, header, references.drawing())
        with gr.Tab("Train a head", id="seg-head-tab"):
            build_head_tab(services, header, references.references)


def _build_find_tab(services: Services, header: Header, page: gr.Blocks) -> ReferenceParts:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            example = gr.Button("Try the example: find this cup", size="sm", elem_id="seg-example")
            reference = reference_parts()
        with gr.Column(scale=1, min_width=320):
            result = _result_parts()
            pictures = (result.picture, result.second)
            segmentation_beside(services, header, pictures, result.found, reference.drawing(), result.look())
    remember(page, "segmentation", [result.opacity, result.view])
    wire_reference(reference)
    wire_masks(reference)
    _wire_example(reference, result, example)
    _wire_painted(header, reference)
    _wire_search(services, header, reference, result)
    _wire_results(result)
    return reference


def _result_parts() -> ResultParts:
    targets = gr.File(
        label=f"2. Photos to search (up to {MOST_TARGETS})", file_count="multiple", height=150, elem_id="seg-targets"
    )
    with gr.Row():
        find = gr.Button("3. Find it", variant="primary", elem_id="seg-find")
        stop = gr.Button("Stop", variant="stop", elem_id="seg-stop", visible=False)
    status = gr.Markdown(EMPTY, elem_id="seg-status")
    with gr.Row():
        picture = gr.Image(
            label="Selected photo",
            format="jpeg",
            interactive=False,
            height=420,
            elem_id="seg-picture",
            buttons=["fullscreen"],
        )
        second = second_image("seg-second", 420)
    instances = gr.CheckboxGroup([], label="Parts found (untick what is wrong)", elem_id="seg-instances", visible=False)
    with gr.Row():
        threshold = option_control(
            draw.THRESHOLD.changed(low=0.02, high=0.98),
            elem_id="seg-threshold",
            info="Lower values select more",
            min_width=140,
        )
        opacity = option_control(draw.OPACITY, elem_id="seg-opacity", min_width=140)
    presence = option_control(
        draw.PRESENCE, elem_id="seg-presence", info="Photos scoring lower are reported as not found; 0 always paints."
    )
    view = gr.Radio(VIEWS, value=VIEWS[0], label="Show as", elem_id="seg-view")
    found = gr.State(None, time_to_live=4 * 3600)
    gallery = gr.Gallery(
        label="All photos: click one to select it",
        columns=3,
        height="auto",
        allow_preview=False,
        buttons=[],
        elem_id="seg-gallery",
        format="jpeg",
        object_fit="contain",
    )
    look = [threshold, opacity, view, presence]
    download_button("Download all: masks, cut-outs, COCO (.zip)", _zip_file, [found, *look], "seg-zip", size="md")
    return ResultParts(
        targets, find, stop, picture, second, gallery, status, instances, threshold, opacity, view, presence, found
    )


def _wire_example(reference: ReferenceParts, result: ResultParts, example: gr.Button) -> None:
    @friendly
    def load_example():
        photo = load_photo(ASSETS / "coffee_cup.jpg")
        mask = read_mask_file(EXAMPLE / "cup_mask.png", photo)
        targets = [str(EXAMPLE / name) for name in ("cup_by_the_stream.jpg", "cup_and_dandelions.jpg")]
        targets.append(str(ASSETS / "mountain_path.jpg"))
        return str(ASSETS / "coffee_cup.jpg"), painter_value(photo, mask), photo, targets

    on_painter = [reference.painter, reference.current]
    example.click(load_example, None, [reference.photo, *on_painter, result.targets], **QUIET)


def _wire_painted(header: Header, reference: ReferenceParts) -> None:
    """Take a photo with its mask from another tab."""

    @friendly
    def on_painted(painted: tuple | None):
        if painted is None:
            return (gr.skip(),) * 3
        photo, mask, _ = painted
        return painter_value(photo, mask), photo, fit_within(photo.rgb, DISPLAY_SIDE)

    header.painted.change(on_painted, header.painted, [reference.painter, reference.current, reference.photo], **QUIET)


def _wire_search(services: Services, header: Header, reference: ReferenceParts, result: ResultParts) -> None:
    @friendly
    def on_find(kept, value, photo, name, paths, backbone, resolution, *look):
        wanted, others = gather(kept, value, photo, name)
        yield from search(services, wanted, others, paths or [], (backbone, resolution), Look(*look))

    inputs = [*reference.drawing(), result.targets, header.backbone, header.resolution, *result.look()]
    outputs = [result.found, result.gallery, result.status, result.stop]
    event = result.find.click(
        on_find, inputs, outputs, **ENGINE_QUEUE, api_visibility="private", show_progress_on=[result.status]
    )
    shown = [result.picture, result.instances, result.gallery]
    event.success(show_all, [result.found, *result.look()], shown, **QUIET)
    result.stop.click(
        lambda: ("Stopped; what was found stays.", gr.update(visible=False)),
        None,
        [result.status, result.stop],
        cancels=[event],
        **QUIET,
    )


def _wire_results(result: ResultParts) -> None:
    inputs = [result.found, *result.look()]
    selected = [result.picture, result.instances]
    everything = [*selected, result.gallery]
    result.gallery.select(select, result.found, result.found, **QUIET).success(show_one, inputs, selected, **QUIET)
    result.threshold.input(show_one, inputs, selected, **LIVE)
    result.threshold.release(show_all, inputs, everything, **LIVE)
    result.opacity.change(show_one, inputs, selected, **LIVE)
    result.presence.release(show_all, inputs, everything, **LIVE)
    result.view.change(show_all, inputs, everything, **LIVE)
    result.instances.input(on_toggle, [result.instances, *inputs], [result.found, result.picture], **LIVE).success(
        show_thumbs, inputs, result.gallery, **QUIET
    )


def select(found: Found | None, event: gr.SelectData) -> Found | None:
    """Remember which photo was clicked."""
    return None if found is None else Found(found.results, found.backbone, event.index)


@friendly
def show_one(found: Found | None, *look) -> tuple:
    """Draw the selected photo and list its parts."""
    if found is None or not found.results:
        return None, gr.update(choices=[], value=[], visible=False)
    result = found.results[found.selected]
    shown = draw.look_at(result, Look(*look))
    choices = [(f"{part.number}: {part.area / shown.mask.size:.1%}", part.number) for part in shown.instances]
    ticked = [number for _, number in choices if number not in result.hidden]
    return gr.update(value=draw.draw_result(shown), label=draw.caption(shown)), gr.update(
        choices=choices, value=ticked, visible=bool(choices)
    )


@friendly
def show_thumbs(found: Found | None, *look) -> list:
    """Draw all photos small."""
    return [] if found is None else draw.draw_thumbs(list(found.results), Look(*look))


def show_all(found: Found | None, *look) -> tuple:
    """Draw the selected photo and all small ones."""
    return *show_one(found, *look), show_thumbs(found, *look)


@friendly
def on_toggle(shown: list[int], found: Found | None, *look) -> tuple:
    """Switch parts of the selected photo on and off."""
    if found is None:
        raise ValueError("there is nothing to change any more; find something again")
    asked, results = Look(*look), list(found.results)
    changed = draw.toggle(draw.look_at(results[found.selected], asked), shown)
    results[found.selected] = changed
    return Found(tuple(results), found.backbone, found.selected), draw.draw_result(draw.look_at(changed, asked))


def _zip_file(found: Found | None, *look) -> tuple[str, bytes]:
    if found is None or not found.results:
        raise ValueError("there is nothing to download yet; find something first")
    return draw.zip_file(list(found.results), Look(*look), made_with_name(found.backbone))


def segmentation_beside(
    services: Services, header: Header, pictures: tuple[gr.Image, gr.Image], found: gr.State, drawing: list, look: list
) -> None:
    """Search the selected photo a second time, with the references as they are now."""

    def make(backbone: str, resolution: float, current: Found | None, kept, painted, photo, name, *values):
        if current is None or not current.results:
            return None
        segmenter = fit(services, *gather(kept, painted, photo, name), backbone, int(resolution))
        chosen = current.results[current.selected]
        result = replace(chosen, segmentation=segmenter.predict(chosen.photo), hidden=frozenset())
        return draw.draw_result(draw.look_at(result, draw.Look(*values)))

    beside(header, *pictures, make, [header.resolution, found, *drawing, *look])
