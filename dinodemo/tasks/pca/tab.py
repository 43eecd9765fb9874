"""Patch PCA tab: one to eight photos, coloured jointly so that the same part has the same colour in each."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ...io.images import Photo, load_photo
from ...web.comparison import wire_comparison
from ...web.components import ASSETS, DROP_HEIGHT, download_button, option_control, read_photos
from ...web.errors import friendly
from ...web.events import LIVE, QUIET, Options, runs_network
from ...web.examples import example_mark, when_opened
from ...web.header import Header
from ...web.i18n import say
from ...web.live_view import SKIP, live_view, moved
from ...web.memory import remember
from ...web.openings import photos_to_show
from ...web.services import Services, status_line
from ..base import RESOLUTION
from . import draw
from .basis import PatchPCA
from .draw import KEPT_COMPONENTS, MOST_PHOTOS, Look, View
from .live import live_value, undrawn

EMPTY = "Drop one to eight photos, or take an example."
OPENING = "One object, three places"
EXAMPLES = {
    "Cat and dogs": ["cat_chelsea.jpg", "two_dogs_balcony.jpg"],
    OPENING: [
        "coffee_cup.jpg",
        "segmentation/cup_by_the_stream.jpg",
        "segmentation/cup_and_dandelions.jpg",
    ],
    "Cup": ["coffee_cup.jpg"],
    "Mountain and stream": ["mountain_path.jpg", "forest_stream.jpg"],
}
# a threshold that is moved is the person's own; what follows from that comes with the change of the choice
THRESHOLD_MOVED = f"""(...values) => values[1] === 'manual'
  ? [{SKIP}, ...({moved("pca-live", 2)})(...values)] : ['manual', {SKIP}, {SKIP}]"""


@dataclass(frozen=True)
class Outputs:
    """Components that show results."""

    pictures: gr.Gallery
    comparison: gr.Gallery
    explained: gr.Markdown
    status: gr.Markdown
    live: gr.HTML

    def all(self) -> list:
        return [self.pictures, self.explained, self.status, self.live]


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    view = gr.State(None, time_to_live=4 * 3600)
    basis = gr.State(None)
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=2, min_width=320):
            files = gr.File(label="Photos (1 to 8)", file_count="multiple", elem_id="pca-photos", height=DROP_HEIGHT)
            with gr.Row(elem_classes="example-sets"):
                examples = [gr.Button(name, size="sm", min_width=110) for name in EXAMPLES]
            mark = example_mark()
            stop = gr.Button("Stop", size="sm", variant="stop", visible=False, elem_id="pca-stop")
            controls = _controls()
        with gr.Column(scale=3, min_width=320):
            outputs = _outputs()
            compare_pca(services, header, outputs, view, controls)
            with gr.Row():
                inputs = [view, basis, *controls]
                download_button("Download PNG", _with_basis(draw.pictures_file), inputs, "pca-png")
                download_button("Download raw (.npz)", _with_basis(draw.raw_file), inputs, "pca-npz")
                download_button("Save basis", _basis_file, inputs, "pca-save")
            with gr.Accordion("Apply a saved basis", open=False):
                loader = gr.File(label="Basis (.npz)", height=130, elem_id="pca-load")
    remember(page, "pca", controls[-3:])
    _wire(services, header, tab, (view, basis, files, examples, mark, stop, loader), controls, outputs)


def _controls() -> list:
    """Make the controls, in the order of `Look`."""
    foreground = option_control(
        draw.FOREGROUND,
        radio=True,
        info="Splits on the first component. Automatic uses Otsu's threshold.",
        elem_id="pca-foreground",
    )
    threshold = option_control(
        draw.THRESHOLD, elem_id="pca-threshold", interactive=True, info="Moving it switches to the manual threshold."
    )
    with gr.Accordion("Colours", open=False), gr.Row():
        components = list(range(1, KEPT_COMPONENTS + 1))
        colours = [
            gr.Dropdown(components, value=one.default, label=one.label, min_width=90, elem_id=f"pca-{one.name}")
            for one in draw.CHANNELS
        ]
    with gr.Row():
        smooth = option_control(draw.SMOOTH, min_width=90, elem_id="pca-smooth")
        backdrop = option_control(draw.BACKDROP.changed(default=True), min_width=120)
        side_by_side = option_control(draw.SIDE_BY_SIDE.changed(default=True), min_width=120, elem_id="pca-beside")
    return [foreground, threshold, *colours, smooth, backdrop, side_by_side]


def _outputs() -> Outputs:
    gallery: Options = {
        "columns": 2,
        "height": "auto",
        "format": "jpeg",
        "elem_classes": "shaped",
        "buttons": ["fullscreen"],
    }
    return Outputs(
        gr.Gallery(label="Same colour, same meaning", elem_id="pca-pictures", **gallery),
        gr.Gallery(elem_id="pca-second", visible=False, **gallery),
        gr.Markdown(elem_id="pca-explained"),
        gr.Markdown(EMPTY, elem_id="pca-status"),
        live_view("pca-live", "basis.js", "colours.js"),
    )


def _wire(services, header, tab, parts, controls, outputs) -> None:
    view, basis, files, examples, mark, stop, loader = parts
    given = gr.State([])  # holds the choice of photos, so that what the tab opens with never replaces it
    opening = _example(OPENING) if services.openings.on else []
    services.openings.add(
        lambda backbone: [services.run(load_photo(p), backbone, RESOLUTION.default) for p in _example(OPENING)]
    )
    chosen = [header.backbone, header.resolution]
    run = runs_network(outputs.status)

    @friendly
    def on_files(paths: list[str] | None, choices: list, backbone: str, resolution: float):
        choices[:] = paths or []
        photos = read_photos(paths or [], MOST_PHOTOS)
        for step in analyse(services, photos, backbone, resolution):
            yield *step, photos[0] if photos else None, gr.update(visible=False)

    @friendly
    def refresh(current: View | None, backbone: str, resolution: float):
        if current is None or current.key == (backbone, int(resolution)):
            yield gr.skip(), gr.skip(), gr.skip()
        else:
            yield from analyse(services, current.photos, backbone, resolution)

    @friendly
    def on_tab(latest: Photo | None, current: View | None, choices: list, *settings):
        photos, is_example = photos_to_show(latest, current.photos if current else (), bool(choices), opening)
        if photos is None:
            for step in refresh(current, *settings):
                yield *step, gr.skip()
            return
        for step in analyse(services, photos, *settings):  # the tab opens with something to look at
            yield (gr.skip(),) * 4 if choices else (*step, gr.update(visible=is_example))

    after = [view, outputs.status, stop]
    opened = when_opened(tab, services.start)
    events = [
        files.change(on_files, [files, given, *chosen], [*after, header.photo, mark], **run),
        header.ready.change(refresh, [view, *chosen], after, **run),
        opened.success(on_tab, [header.photo, view, given, *chosen], [*after, mark], **run),
    ]
    for event in [*events, loader.change(load_basis, loader, basis, **QUIET)]:
        shown = event.success(show, [view, basis, *controls], [*outputs.all(), controls[1]], **QUIET)
        shown.failure(show_nothing, controls, [outputs.pictures, outputs.explained, outputs.live], **QUIET)
    stop.click(lambda: ("Stopped.", gr.update(visible=False)), None, [outputs.status, stop], cancels=events, **QUIET)
    for button, name in zip(examples, EXAMPLES, strict=True):
        button.click(lambda name=name: _example(name), None, files, **QUIET)
    _wire_controls(header, [view, basis, *controls], controls, outputs)


def _wire_controls(header: Header, inputs: list, controls: list, outputs: Outputs) -> None:
    """Let the browser redraw; the server, where it cannot."""
    foreground, threshold, *others = controls
    moving, follow = [header.comparison_picker, *controls], [threshold, outputs.explained]
    for control in (foreground, *others):
        control.change(None, moving, follow, js=moved("pca-live", 2), **QUIET)
    threshold.input(None, moving, [foreground, *follow], js=THRESHOLD_MOVED, **QUIET)
    outputs.live.submit(show, inputs, [*outputs.all(), threshold], **LIVE)


def analyse(services: Services, photos, backbone: str, resolution: float):
    """Run the network on photos one by one: yields (view, status, stop button), the view only at the end."""
    if not photos:
        yield None, EMPTY, gr.update(visible=False)
        return
    runs = []
    for i, photo in enumerate(photos, start=1):
        yield gr.skip(), f"Photo {i} of {len(photos)}: {photo.name}", gr.update(visible=len(photos) > 1)
        runs.append(services.run(photo, backbone, int(resolution)))
    engine = services.pool.get(backbone)
    cached = all(run.cached for run in runs)
    status = status_line(engine, runs[-1].features, sum(run.milliseconds for run in runs), cached)
    features = tuple(run.features for run in runs)
    yield View(tuple(photos), features, (backbone, int(resolution)), status), status, gr.update(visible=False)


@friendly
def show(view: View | None, basis: PatchPCA | None, *values) -> tuple:
    """Fit (or take the loaded basis) and draw; the network is not called."""
    look, loaded = Look(*values), basis is not None
    if view is None:
        return [], "", EMPTY, live_value(None, look), gr.skip()
    pca = draw.fit(view, look, basis)
    slider = gr.update(value=round(pca.threshold_, 2)) if look.foreground == "auto" and pca.threshold_ else gr.skip()
    pictures = draw.draw(view, look, pca)
    live = live_value(view, look, pca, loaded, tuple(say(caption) for _, caption in pictures))
    if live["maps"]:
        live["words"] = {name: say(text) for name, text in live["words"].items()}
    return pictures, draw.explain(view, look, pca, loaded), view.status, live, slider


def show_nothing(*values) -> tuple:
    """Leave no picture of other photos or of another basis, and nothing that a browser could redraw."""
    return [], "", undrawn(Look(*values))


@friendly
def load_basis(path: str | None) -> PatchPCA | None:
    """Read an uploaded basis; None when the file was removed."""
    return PatchPCA.load(path) if path else None


def _example(name: str) -> list[str]:
    return [str(ASSETS / photo) for photo in EXAMPLES[name]]


def _with_basis(make):
    def with_basis(view: View | None, basis: PatchPCA | None, *values) -> tuple[str, bytes]:
        shown, look = _need(view), Look(*values)
        return make(shown, look, draw.fit(shown, look, basis))

    return with_basis


def _basis_file(view: View | None, basis: PatchPCA | None, *look) -> tuple[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return draw.basis_file(draw.fit(_need(view), Look(*look), basis), Path(folder))


def _need(view: View | None) -> View:
    if view is None:
        raise ValueError("there is nothing to download yet; drop a photo first")
    return view


def compare_pca(services: Services, header: Header, outputs: Outputs, view: gr.State, look: list) -> None:
    """Colour the photos a second time, by a basis of that backbone's own."""

    def make(backbone: str, current, *values):
        if current is None:
            return None
        chosen = Look(*values)
        found = tuple(services.run(photo, backbone, current.key[1]).features for photo in current.photos)
        other = View(current.photos, found, (backbone, current.key[1]), "")
        return draw.draw(other, chosen, draw.fit(other, chosen, None))

    wire_comparison(header, outputs.pictures, outputs.comparison, make, [view, *look], [outputs.live.input])
