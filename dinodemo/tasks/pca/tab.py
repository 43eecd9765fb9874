"""Patch PCA tab: one to eight photos, coloured jointly so that the same part has the same colour in each."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ...io.images import Photo, load_photo
from ...web.comparison import wire_comparison
from ...web.components import ASSETS, DROP_HEIGHT, download_button, option_control, read_photos
from ...web.errors import friendly
from ...web.events import QUIET, Options, runs_network
from ...web.examples import example_mark, when_opened
from ...web.header import Header
from ...web.memory import remember
from ...web.openings import photos_to_show
from ...web.services import Services, status_line
from ..base import RESOLUTION
from . import draw
from .basis import PatchPCA
from .draw import KEPT_COMPONENTS, MOST_PHOTOS, Look, View

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


@dataclass(frozen=True)
class Outputs:
    """Components that show results."""

    pictures: gr.Gallery
    explained: gr.Markdown
    status: gr.Markdown

    def all(self) -> list:
        return [self.pictures, self.explained, self.status]


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab's components and wire them."""
    view = gr.State(None, time_to_live=4 * 3600)
    basis = gr.State(None)
    with gr.Row(elem_classes="work"):
        with gr.Column(scale=2, min_width=320):
            files = gr.File(label="Photos (1 to 8)", file_count="multiple", elem_id="pca-photos", height=DROP_HEIGHT)
            with gr.Row():
                examples = [gr.Button(name, size="sm", min_width=110) for name in EXAMPLES]
            mark = example_mark()
            stop = gr.Button("Stop", size="sm", variant="stop", visible=False, elem_id="pca-stop")
            controls = _controls()
        with gr.Column(scale=3, min_width=320):
            gallery: Options = {"columns": 2, "height": "auto", "format": "jpeg", "elem_classes": "shaped"}
            pictures = gr.Gallery(
                label="Same colour, same meaning", elem_id="pca-pictures", buttons=["fullscreen"], **gallery
            )
            comparison = gr.Gallery(elem_id="pca-second", visible=False, buttons=["fullscreen"], **gallery)
            compare_pca(services, header, (pictures, comparison), view, controls)
            outputs = Outputs(pictures, gr.Markdown(elem_id="pca-explained"), gr.Markdown(EMPTY, elem_id="pca-status"))
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
    show_inputs = [view, basis, *controls]
    for event in events:
        event.success(show, show_inputs, [*outputs.all(), controls[1]], **QUIET)
    stop.click(lambda: ("Stopped.", gr.update(visible=False)), None, [outputs.status, stop], cancels=events, **QUIET)
    for button, name in zip(examples, EXAMPLES, strict=True):
        button.click(lambda name=name: _example(name), None, files, **QUIET)

    foreground, threshold, *others = controls
    for control in (foreground, *others):
        control.change(show, show_inputs, [*outputs.all(), threshold], trigger_mode="always_last", **QUIET)
    threshold.input(lambda: "manual", None, foreground, **QUIET).then(
        show, show_inputs, [*outputs.all(), threshold], trigger_mode="always_last", **QUIET
    )
    loader.change(load_basis, loader, basis, **QUIET).success(show, show_inputs, [*outputs.all(), threshold], **QUIET)


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
    if view is None:
        return [], "", EMPTY, gr.skip()
    look = Look(*values)
    pca = draw.fit(view, look, basis)
    slider = gr.update(value=round(pca.threshold_, 2)) if look.foreground == "auto" and pca.threshold_ else gr.skip()
    return draw.draw(view, look, pca), draw.explain(view, look, pca, basis is not None), view.status, slider


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


def compare_pca(
    services: Services, header: Header, pictures: tuple[gr.Gallery, gr.Gallery], view: gr.State, look: list
) -> None:
    """Colour the photos a second time, by a basis of that backbone's own."""

    def make(backbone: str, current, *values):
        if current is None:
            return None
        chosen = Look(*values)
        found = tuple(services.run(photo, backbone, current.key[1]).features for photo in current.photos)
        other = View(current.photos, found, (backbone, current.key[1]), "")
        return draw.draw(other, chosen, draw.fit(other, chosen, None))

    wire_comparison(header, *pictures, make, [view, *look])
