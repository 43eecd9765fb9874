"""Anomalies tab: drop good photos, drop photos to check, see what is unlike all good ones."""

from dataclasses import dataclass
from functools import lru_cache

import gradio as gr

from ...engine.provenance import made_with_name
from ...web.clicks import Choice, Spot
from ...web.components import ASSETS, download_button, option_control
from ...web.errors import friendly
from ...web.events import LIVE, PICTURE, QUIET, Options, runs_network
from ...web.examples import example_mark, when_opened
from ...web.header import Header
from ...web.memory import remember
from ...web.services import Services
from ..base import RESOLUTION
from . import draw
from .detector import AUGMENT, FOREGROUND
from .draw import LINE
from .export import scores_csv, zip_file
from .session_tab import EMPTY, MOST_CHECKED, Found, Learned, accept, check, learn, load_set

EXAMPLE = ASSETS / "anomaly"


@dataclass(frozen=True)
class Inputs:
    """The components on the left, and what was learned."""

    good: gr.File
    example: gr.Button
    mark: gr.Markdown
    saved: gr.File
    learned_status: gr.Markdown
    check: gr.File
    stop: gr.Button
    augment: gr.Dropdown
    foreground: gr.Dropdown
    learned: gr.State


@dataclass(frozen=True)
class Results:
    """The components on the right, and what was found."""

    status: gr.Markdown
    line: gr.Slider
    view: gr.Radio
    opacity: gr.Slider
    picture: gr.Image
    fine: gr.Button
    nearest: gr.Image
    why: gr.Markdown
    gallery: gr.Gallery
    found: gr.State

    def look(self) -> list:
        """Return the controls that redraw."""
        return [self.line, self.view, self.opacity]


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            inputs = _inputs()
            look = _look()
        with gr.Column(scale=3, min_width=320):
            results = _results(*look)
            _downloads(inputs, results)
    remember(page, "anomaly", [results.view, results.opacity])
    _wire_work(services, header, inputs, results)
    _wire_opening(services, header, tab, inputs, results)
    _wire_look(results)


def _inputs() -> Inputs:
    good = gr.File(label="1. Good photos (1 to 100)", file_count="multiple", height=130, elem_id="anomaly-good")
    example = gr.Button("Try the example: cups, some damaged", size="sm", elem_id="anomaly-example")
    mark = example_mark("**Example.** Drop good photos of your own to replace it.")
    learned_status = gr.Markdown(elem_id="anomaly-learned")
    photos = gr.File(
        label=f"2. Photos to check (up to {MOST_CHECKED})", file_count="multiple", height=130, elem_id="anomaly-check"
    )
    stop = gr.Button("Stop", size="sm", variant="stop", visible=False, elem_id="anomaly-stop")
    with gr.Accordion("Settings, and saved sets", open=False):
        with gr.Row():
            augment = option_control(
                AUGMENT, info="These views count as good, too.", min_width=130, elem_id="anomaly-augment"
            )
            foreground = option_control(
                FOREGROUND, info="Auto leaves a plain background out.", min_width=130, elem_id="anomaly-foreground"
            )
        saved = gr.File(label="Load a saved set (.safetensors)", height=110, elem_id="anomaly-load")
    return Inputs(good, example, mark, saved, learned_status, photos, stop, augment, foreground, gr.State(None))


def _look() -> tuple[gr.Radio, gr.Slider]:
    """Make the controls of the look, which stand on the left where there is room."""
    with gr.Row():
        view = option_control(draw.VIEW, radio=True, min_width=220, elem_id="anomaly-view")
        opacity = option_control(draw.OPACITY, min_width=140, elem_id="anomaly-opacity")
    return view, opacity


def _results(view: gr.Radio, opacity: gr.Slider) -> Results:
    status = gr.Markdown(EMPTY, elem_id="anomaly-status")
    line = option_control(LINE, info="1 is what the good photos gave; move it.", elem_id="anomaly-line")
    with gr.Row():
        picture = gr.Image(
            label="Click a spot for its nearest good patch",
            elem_id="anomaly-picture",
            elem_classes="main-picture low",
            **PICTURE,
        )
        nearest = gr.Image(
            label="Clicked patch and nearest good patch",
            height=380,
            visible=False,
            elem_id="anomaly-nearest",
            **PICTURE,
        )
    why = gr.Markdown(elem_id="anomaly-why")
    fine = gr.Button("This is fine too", size="sm", elem_id="anomaly-fine")
    gallery: Options = {"columns": 4, "height": "auto", "format": "jpeg", "elem_classes": "shaped small"}
    shown = gr.Gallery(
        label="Most anomalous first: click one", allow_preview=False, buttons=[], elem_id="anomaly-gallery", **gallery
    )
    found = gr.State(None, time_to_live=4 * 3600)
    return Results(status, line, view, opacity, picture, fine, nearest, why, shown, found)


def _downloads(inputs: Inputs, results: Results) -> None:
    with gr.Row():
        download_button("Scores (.csv)", _csv_file, [results.found, results.line], "anomaly-csv")
        download_button("Maps, masks, COCO (.zip)", _zip_file, [results.found, results.line], "anomaly-zip")
        download_button("Save the set", _set_file, [inputs.learned], "anomaly-save")


def _wire_work(services: Services, header: Header, inputs: Inputs, results: Results) -> None:
    run = runs_network(results.status)
    settings = [header.backbone, header.resolution, inputs.augment, inputs.foreground]
    learned = [inputs.learned, inputs.learned_status, inputs.stop]
    found = [results.found, results.status, inputs.stop]

    @friendly
    def on_good(paths: list[str] | None, before: Learned | None, *chosen):
        yield from learn(services, paths or [], before, *chosen)

    @friendly
    def on_saved(path: str | None, backbone: str):
        return load_set(services, path, backbone)

    @friendly
    def on_check(now: Learned | None, paths: list[str] | None, before: Found | None):
        yield from check(services, now, paths or [], before)

    @friendly
    def on_fine(now: Learned | None, before: Found | None):
        yield from accept(services, now, before)

    again = (inputs.good.change, header.ready.change, inputs.augment.change, inputs.foreground.change)
    events = [source(on_good, [inputs.good, inputs.learned, *settings], learned, **run) for source in again]
    events.append(inputs.saved.upload(on_saved, [inputs.saved, header.backbone], learned, **run))
    asked = [inputs.learned, inputs.check, results.found]
    checks = [event.success(on_check, asked, found, **run) for event in events]
    checks.append(inputs.check.change(on_check, asked, found, **run))
    fine = results.fine.click(
        on_fine, [inputs.learned, results.found], [inputs.learned, inputs.learned_status, *found], **run
    )
    redraw = [results.found, *results.look()]
    for event in (*checks, fine):
        event.success(show_all, redraw, _shown(results), **QUIET)
    inputs.stop.click(
        lambda: ("Stopped; what was checked stays.", gr.update(visible=False)),
        None,
        [results.status, inputs.stop],
        cancels=[*events, *checks, fine],
        **QUIET,
    ).then(show_all, redraw, _shown(results), **QUIET)
    inputs.example.click(_example, None, [inputs.good, inputs.check], **QUIET)


def _example() -> tuple[list[str], list[str]]:
    """Return the paths of the example's good photos, and of those to check."""
    good, others = ([str(path) for path in sorted(EXAMPLE.glob(f"{kind}_*.jpg"))] for kind in ("good", "check"))
    return good, others


def _wire_opening(services: Services, header: Header, tab: gr.Tab, inputs: Inputs, results: Results) -> None:
    """Open with the example; all visitors see the same one."""
    used = gr.State([])  # holds something once the person has given photos

    @lru_cache(maxsize=2)
    def example(backbone: str, resolution: int) -> tuple[Learned, Found]:
        good, others = _example()
        *_, (learned, _, _) = learn(services, good, None, backbone, resolution, AUGMENT.default, FOREGROUND.default)
        *_, (found, _, _) = check(services, learned, others, None)
        return learned, found

    services.openings.add(lambda backbone: example(backbone, RESOLUTION.default))

    @friendly
    def on_tab(before: Learned | None, choices: list, backbone: str, resolution: float):
        nothing = (gr.skip(),) * 4
        if before is not None or choices or not services.openings.on:
            return nothing
        learned, found = example(backbone, int(resolution))
        return nothing if choices else (learned, learned.about(), found, gr.update(visible=True))

    def leave(choices: list):
        choices.append(True)
        return gr.update(visible=False)

    asked = [inputs.learned, used, header.backbone, header.resolution]
    filled = [inputs.learned, inputs.learned_status, results.found, inputs.mark]
    opened = when_opened(tab, services.start).success(on_tab, asked, filled, **runs_network(results.status))
    opened.success(show_all, [results.found, *results.look()], _shown(results), **QUIET)
    gr.on([inputs.good.upload, inputs.saved.upload, inputs.example.click], leave, used, inputs.mark, **QUIET)


def _shown(results: Results) -> list:
    return [results.status, results.picture, results.gallery, results.nearest, results.why]


def _wire_look(results: Results) -> None:
    redraw = [results.found, *results.look()]

    @friendly
    def on_spot(found: Found | None, line: float, event: Spot):
        if found is None or not found.checked:
            return gr.skip(), gr.skip()
        picture, sentence = found.why(event.point, line)
        return gr.update(value=picture, visible=True), sentence

    results.gallery.select(select, results.found, results.found, **QUIET).success(
        show_one, redraw, [results.status, results.picture, results.nearest, results.why], **QUIET
    )
    results.picture.select(on_spot, [results.found, results.line], [results.nearest, results.why], **QUIET)
    results.line.input(show_line, redraw, [results.status, results.picture], **LIVE)
    results.line.release(show_all, redraw, _shown(results), **LIVE)
    for control in (results.view, results.opacity):
        control.change(show_all, redraw, _shown(results), **LIVE)


@friendly
def select(found: Found | None, event: Choice) -> Found | None:
    """Remember which photo was clicked."""
    return found and found.at(event.index)


@friendly
def show_line(found: Found | None, line: float, view: str, opacity: float) -> tuple:
    """Count again and redraw the selected photo."""
    if found is None or not found.checked:
        return gr.skip(), None
    one = found.checked[found.selected]
    picture = gr.update(value=draw.draw(one, line, view, opacity), label=draw.caption(one, line))
    return found.status(line), picture


def show_one(found: Found | None, *look) -> tuple:
    """Show another photo; what was asked of the one before goes."""
    return *show_line(found, *look), gr.update(value=None, visible=False), ""


@friendly
def show_all(found: Found | None, *look) -> tuple:
    """Redraw everything; the network is not asked."""
    status, picture, nearest, why = show_one(found, *look)
    thumbs = [] if found is None else draw.thumbnails(list(found.checked), *look)
    return status, picture, thumbs, nearest, why


def _csv_file(found: Found | None, line: float) -> tuple[str, bytes]:
    rows = [(one.photo.name, one.result.score, one.result.verdict_at(line)) for one in _need(found).checked]
    return "scores.csv", scores_csv(rows)


def _zip_file(found: Found | None, line: float) -> tuple[str, bytes]:
    checked, detector = _need(found).checked, _need(found).detector
    return zip_file(checked, line, made_with_name(detector.backbone_, detector.engine.identity))


def _set_file(learned: Learned | None) -> tuple[str, bytes]:
    if learned is None:
        raise ValueError("nothing was learned yet; drop good photos first")
    return "good-photos.safetensors", learned.detector.to_bytes()


def _need(found: Found | None) -> Found:
    if found is None or not found.checked:
        raise ValueError("nothing was checked yet; drop good photos and photos to check first")
    return found
