"""Train a probe on uploaded pairs: what was read is shown first; charts, held-out pictures beside the truth, save."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ...io.uploads import put_into
from ...web.background import Work
from ...web.components import download_button, option_control, problem_list
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, QUIET
from ...web.examples import ASSETS
from ...web.folder_picker import folder_picker, read_upload
from ...web.header import Header
from ...web.services import Services
from . import survey
from .options import DIRECTION, DIRECTIONS, EPOCHS, KIND, RELATIVE
from .probe_store import Own, probe_file
from .progress import bars, held_out_pictures, rows_of
from .units import AUTO, NO_UNIT, PRESETS, UNIT

UNITS = [
    ("Guess from numbers and names", AUTO),
    *((f"{words[0].upper()}{words[1:]}", name) for name, (_, words) in PRESETS.items()),
    ("None (near and far only)", NO_UNIT),
]
HELP = (
    "Photos and depth maps: `rgb/x.jpg` + `depth/x.png` (16 bit), `.npy` or `.exr`, the layouts of public sets, or a "
    "list of pairs (.csv). A fifth is held out to measure on, whole scenes or the end of the walk. With 100 pairs it "
    "takes some minutes on two processor cores."
)
SAMPLE = ASSETS / "depth"
ABOUT_SAMPLE = (
    "12 rendered pictures of four rooms, with exact depth (CC0). A probe of them shows how training goes; it knows "
    "little of real rooms."
)
READ, MEASURED = "Photo and depth, as read", "Photo, truth, estimate, error"
MORE_SUFFIXES = ("npy", "exr", "pfm", "json", "csv", "txt")


@dataclass(frozen=True)
class Parts:
    """The sub-tab's components."""

    pairs: gr.HTML
    sample: gr.State
    try_sample: gr.Button
    unit: gr.Dropdown
    direction: gr.Dropdown
    relative: gr.Checkbox
    found: gr.Markdown
    histogram: gr.BarPlot
    name: gr.Textbox
    kind: gr.Radio
    epochs: gr.Slider
    train: gr.Button
    stop: gr.Button
    status: gr.Markdown
    problems: gr.Markdown
    losses: gr.LinePlot
    metrics: gr.LinePlot
    pictures: gr.Gallery

    def reading(self) -> list:
        """Return what decides on how the files are read."""
        return [self.pairs, self.sample, self.unit, self.direction, self.relative]


def build_training(services: Services, header: Header, own: gr.State) -> Callable:
    """Build the sub-tab; returns the event that announces a new probe in `own`."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            settings = _settings()
        with gr.Column(scale=3, min_width=320):
            results = _results(own)
    parts = Parts(*settings, *results)
    _wire_survey(parts)
    return _wire_training(services, header, own, parts)


def _settings() -> list:
    gr.Markdown(HELP)
    pairs = folder_picker("depth-pairs", MORE_SUFFIXES)
    sample = gr.State(False)  # whether it is what is read, instead of what was dropped
    try_sample = gr.Button("Try the sample", size="sm", elem_id="depth-sample")
    gr.Markdown(ABOUT_SAMPLE, elem_id="depth-about-sample")
    unit = gr.Dropdown(
        UNITS,
        value=UNIT.default,
        label=UNIT.label,
        allow_custom_value=True,
        info="Or type how many units are in a metre, such as 1000.",
        elem_id="depth-unit",
    )
    direction = gr.Dropdown(
        [(words, name) for name, (words, _) in DIRECTIONS.items()],
        value=DIRECTION.default,
        label=DIRECTION.label,
        elem_id="depth-nearer",
    )
    relative = option_control(RELATIVE, elem_id="depth-relative")
    found = gr.Markdown("Drop a folder or a zip to see what it holds.", elem_id="depth-found")
    histogram = gr.BarPlot(
        x="depth", y="percent", height=160, visible=False, elem_id="depth-histogram", y_title="% of readings"
    )
    name = gr.Textbox(label="Name of the probe", value="my probe", max_length=40, elem_id="depth-name")
    kind = option_control(KIND, radio=True, elem_id="depth-kind")
    epochs = option_control(EPOCHS, elem_id="depth-epochs", info=EPOCHS.help)
    with gr.Row():
        train = gr.Button("Train", variant="primary", elem_id="depth-train")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="depth-train-stop")
    return [pairs, sample, try_sample, unit, direction, relative, found, histogram, name, kind, epochs, train, stop]


def _results(own: gr.State) -> list:
    status = gr.Markdown("No probe of your own yet.", elem_id="depth-train-status")
    with gr.Row():
        losses = gr.LinePlot(
            x="epoch",
            y="value",
            color="curve",
            height=220,
            elem_id="depth-curve",
            title="Loss",
            x_axis_format="d",
            visible=False,
        )
        metrics = gr.LinePlot(
            x="epoch",
            y="value",
            color="curve",
            height=220,
            elem_id="depth-metrics",
            title="Held out",
            x_axis_format="d",
            visible=False,
        )
    pictures = gr.Gallery(
        label=READ,
        columns=4,
        height="auto",
        buttons=[],
        format="jpeg",
        elem_id="depth-held-out",
        object_fit="contain",
    )
    problems = gr.Markdown(elem_id="depth-problems")
    download_button("Save the newest probe", probe_file, [own], "depth-save")
    return [status, problems, losses, metrics, pictures]


def _read(value, sample: bool, unit, direction: str, relative: bool, folder: str):
    """Read what was uploaded, or the sample; photos of a zip are written into the folder.

    Returns:
        Its name, pairs and problems.
    """
    from . import read_pairs

    source, title = (SAMPLE, "the sample") if sample else _uploaded(value, folder)
    asked = NO_UNIT if relative and unit == AUTO else unit
    return title, *read_pairs(
        source, out=Path(folder) / "photos", unit=asked, inverse=DIRECTIONS[DIRECTION.check(direction)][1]
    )


def _uploaded(value, folder: str) -> tuple[Path, str]:
    """Return where the uploaded files lie, and what they are called."""
    uploaded = read_upload(value)
    if not uploaded:
        raise ValueError("there are no pairs yet; drop a folder or a zip first, or try the sample")
    path, name = uploaded[0]
    if len(uploaded) == 1 and name.suffix.lower() == ".zip":
        return path, name.name
    source = Path(folder) / "files"
    put_into(uploaded, source)
    return source, name.parts[0] if len(name.parts) > 1 else f"{len(uploaded)} files"


def _wire_survey(parts: Parts) -> None:
    outputs = [parts.found, parts.histogram, parts.problems, parts.pictures]

    @friendly
    def on_files(*asked):
        with tempfile.TemporaryDirectory(prefix="dinodemo-pairs-") as folder:
            _, pairs, problems = _read(*asked, folder)
            shown = gr.update(value=bars(survey.histogram(pairs)), visible=True)
            return (
                survey.describe_pairs(pairs),
                shown,
                problem_list(problems),
                gr.update(value=survey.pictures(pairs), label=READ),
            )

    def again(value, sample, *rest):
        return on_files(value, sample, *rest) if value or sample else (gr.skip(),) * 4

    dropped = parts.pairs.submit(lambda: False, None, parts.sample, **QUIET)
    asked = parts.try_sample.click(lambda: True, None, parts.sample, **QUIET)
    for chosen in (dropped, asked):
        chosen.success(on_files, parts.reading(), outputs, **QUIET)
    for control in (parts.unit, parts.direction, parts.relative):
        control.input(again, parts.reading(), outputs, **QUIET)


def _wire_training(services: Services, header: Header, own: gr.State, parts: Parts) -> Callable:
    outputs = [own, parts.status, parts.problems, parts.losses, parts.metrics, parts.pictures, parts.stop]
    work = gr.State(None)

    @friendly
    def on_train(
        value, sample, unit, direction, relative, mine: Own, name: str, kind: str, epochs: float, backbone: str, side
    ):
        with tempfile.TemporaryDirectory(prefix="dinodemo-pairs-") as folder:
            title, pairs, problems = _read(value, sample, unit, direction, relative, folder)
            yield from _train(services, (title, pairs, problems), (kind, epochs, relative, backbone, side), mine, name)

    def on_stop(job: Work | None):
        if job is not None:
            job.stop()
        return gr.update(visible=False)

    inputs = [*parts.reading(), own, parts.name, parts.kind, parts.epochs, header.backbone, header.resolution]
    event = parts.train.click(
        on_train, inputs, [work, *outputs], **ENGINE_QUEUE, api_visibility="private", show_progress_on=[parts.status]
    )
    parts.stop.click(on_stop, work, parts.stop, **QUIET)
    event.failure(lambda: ("Not trained.", gr.update(visible=False)), None, [parts.status, parts.stop], **QUIET)
    return event.success


def _train(services: Services, given: tuple, chosen: tuple, mine: Own, name: str):
    """Train on pairs that were read; yields work, own probes, status, problems, both charts, pictures, stop button."""
    from . import DepthProbe

    title, pairs, problems = given
    kind, epochs, relative, backbone, side = chosen
    relative = bool(relative) or pairs.info.unit == "relative"
    engine = services.pool.get(backbone)
    probe = DepthProbe(KIND.check(kind), EPOCHS.check(epochs), int(side), relative=relative, engine=engine)
    groups = [pair.group for pair in pairs]
    scenes = groups if len(set(groups)) > 1 else None
    data = f"{len(pairs)} pairs of {title}"
    job = Work(lambda progress: probe.fit(pairs, groups=scenes, progress=progress, data=data))
    chart, gallery = gr.update(value=None, visible=True), gr.update(value=[], label=MEASURED)
    yield job, gr.skip(), data, problem_list(problems), chart, chart, gallery, gr.update(visible=True)
    for share, message in job.steps():
        charts = (rows_of(probe.curve_, True), rows_of(probe.curve_, False)) if probe.curve_ else (gr.skip(),) * 2
        yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", gr.skip(), *charts, gr.skip(), gr.skip()
    label = " ".join(name.split()) or "my probe"
    kept = tuple(row for row in mine if row[0] != label)
    status = f"Trained **{label}**; it is picked in the first tab. {probe.note_}"
    charts = rows_of(probe.curve_, True), rows_of(probe.curve_, False)
    pictures = held_out_pictures(probe, engine, pairs)
    yield None, (*kept, (label, probe)), status, gr.skip(), *charts, pictures, gr.update(visible=False)
