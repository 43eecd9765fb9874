"""Fine-tuning's second step: watch a run, pause, stop, resume it; then its verdict and what to do with the result."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from ...backbones import BACKBONES
from ...backbones.publish import publish_folder
from ...io.files import stem
from ...io.images import Photo
from ...io.render import overlay, pca_picture
from ...io.states import RunState
from ...jobs.runs import RunInfo, Runs
from ...web.components import download_button, photo_input
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, QUIET
from ...web.header import Header
from ...web.memory import WITH_KEY
from ...web.services import Services, backbone_choices
from ..attention.maps import attention_map
from ..pca.basis import PatchPCA
from . import draw

BUTTONS = 5  # of a run
TICK = 2.0  # seconds between two looks at the run's files
COLOURS = ("#6366f1", "#f59e0b", "#10b981", "#ef4444", "#64748b")
NO_RUN = "No run yet: choose photos and press Start in the first tab."


@dataclass(frozen=True)
class Parts:
    """The components that show a run."""

    status: gr.Markdown
    curves: tuple[gr.LinePlot, ...]  # losses, measure, health, learning rates
    log: gr.Textbox
    snapshots: gr.Gallery
    verdict: gr.Markdown
    buttons: tuple[gr.Component, ...]  # in the order of `usable`

    def shown(self) -> list:
        return [self.status, *self.curves, self.log, self.snapshots, self.verdict, *self.buttons]


def build_run(services: Services, header: Header, runs: Runs, page: gr.Blocks) -> Callable:
    """Build the sub-tab; returns a function that wires "a run was started" to showing it."""
    seen = gr.State(None)  # what is on the page: run, state, sizes of its files
    with gr.Row(equal_height=True):
        run = gr.Dropdown([], label="Run", elem_id="run-choice", scale=1)
        status = gr.Markdown(NO_RUN, elem_id="run-status")
    owner = header.owner
    buttons, acted = _buttons(runs, owner, run)
    with gr.Row():
        losses, measure = _plot("Losses", "run-losses"), _plot("Is it better?", "run-measure")
    with gr.Row():
        health = _plot("Health: rank and entropy as shares of the start's", "run-health")
        rates = _plot("Learning rates", "run-rates")
    gr.Markdown(
        "#### What is being learnt\nThree photos at each evaluation: patches, coloured by one PCA a photo, and "
        "what CLS attends to."
    )
    snapshots = gr.Gallery(
        show_label=False, columns=1, height="auto", buttons=[], format="jpeg", object_fit="contain", elem_id="run-film"
    )
    with gr.Accordion("Log", open=False):
        log = gr.Textbox(lines=draw.LOG_LINES, show_label=False, interactive=False, elem_id="run-log")
    verdict = gr.Markdown(elem_id="run-verdict")
    parts = Parts(status, (losses, measure, health, rates), log, snapshots, verdict, buttons)
    _result(services, header, runs, run)

    @friendly
    def offer(owner: str, chosen: str | None):
        infos = runs.runs_of(owner)
        ids = [info.id for info in infos]
        value = chosen if chosen in ids else (ids[0] if ids else None)
        return gr.update(choices=[(_label(info), info.id) for info in infos], value=value)

    def newest(owner: str):
        return offer(owner, None)

    def look(owner: str, chosen: str | None, before: tuple | None):  # not logged: it is asked every other second
        try:
            return watch(runs.info(owner, chosen), before)
        except ValueError:  # none is chosen, or it was deleted
            nothing = [gr.update(visible=False)] * len(buttons)
            return (NO_RUN, *[None] * 4, "", [], "", *nothing, None) if before else (gr.skip(),) * (9 + len(buttons))

    asked, outputs = [owner, run, seen], [*parts.shown(), seen]
    page.load(offer, [owner, run], run, js=WITH_KEY, **QUIET)
    run.change(look, asked, outputs, **QUIET, trigger_mode="always_last")
    gr.Timer(TICK).tick(look, asked, outputs, **QUIET)
    for event in acted:
        event.success(offer, [owner, run], run, **QUIET).success(look, asked, outputs, **QUIET)
    return lambda event: event(newest, owner, run, **QUIET)


def watch(info: RunInfo, before: tuple | None) -> tuple:
    """Return what is new of a run since `before`.

    Args:
        info: The run.
        before: What the last call returned as its last value, None at first.

    Returns:
        Updates of status, four curves, log, snapshots, verdict and buttons, and the new `before`.
    """
    folder = info.path
    sizes = tuple(_size(folder / name) for name in ("metrics.jsonl", "log.txt", "report.json"))
    kept = len(list((folder / "film").glob("*.npz")))
    now = (info.id, (info.state, info.step, info.total, info.queue_position, info.message), sizes, kept)
    if now == before:
        return (gr.skip(),) * (9 + BUTTONS)
    old = before if before and before[0] == info.id else (None, None, (None,) * 3, None)
    lines = draw.read_metrics(folder)
    curves = [gr.skip()] * 4
    if sizes[0] != old[2][0]:
        makers = draw.loss_curves, draw.measure_curves, draw.health_curves, draw.rate_curves
        curves = [_drawn(make(lines)) for make in makers]
    strips = _strips(draw.snapshots(folder)) if kept != old[3] else gr.skip()
    return (
        draw.status(info, lines),
        *curves,
        draw.log_tail(folder),
        strips,
        draw.verdict(folder) if info.over else "",
        *[gr.update(visible=wanted) for wanted in usable(info)],
        now,
    )


def usable(info: RunInfo) -> tuple[bool, ...]:
    """Return which controls make sense for a run now: pause, resume, stop, the tick before delete, delete."""
    state = RunState(info.state)
    at_work = not state.over
    resumable = state in (RunState.PAUSED, RunState.STOPPED, RunState.INTERRUPTED, RunState.FAILED)
    return state in (RunState.STARTING, RunState.RUNNING), resumable, at_work, state.over, state.over


def _plot(title: str, elem_id: str) -> gr.LinePlot:
    # without a value: one that begins with an empty table never draws its lines
    return gr.LinePlot(None, x="step", y="value", color="curve", title=title, height=260, elem_id=elem_id)


def _drawn(curves: pd.DataFrame) -> dict:
    """Update a plot; it learns of new curves only when its colours change too."""
    if not len(curves):
        return gr.update(value=None)
    return gr.update(value=curves, color_map=dict(zip(curves["curve"].unique().tolist(), COLOURS, strict=False)))


def _strips(strips: list[list]) -> dict:
    """Update the gallery: a strip is a column, so that pictures keep their size while it grows."""
    return gr.update(value=[frame for row in zip(*strips, strict=True) for frame in row], columns=max(1, len(strips)))


def _buttons(runs: Runs, owner: gr.Textbox, run: gr.Dropdown) -> tuple[tuple, list]:
    """Make the controls of a run, hidden until one is chosen; returns them and the events of their use."""
    small: dict[str, Any] = {"size": "sm", "min_width": 80, "visible": False}
    with gr.Row():
        pause = gr.Button("Pause", elem_id="run-pause", **small)
        go_on = gr.Button("Resume", elem_id="run-go-on", **small)
        cancel = gr.Button("Stop and save", variant="stop", elem_id="run-cancel", **small)
        sure = gr.Checkbox(False, label="Yes, delete it", elem_id="run-sure", min_width=100, visible=False)
        delete = gr.Button("Delete", variant="stop", elem_id="run-delete", **small)

    def doing(action: Callable):
        @friendly
        def act(owner: str, chosen: str | None):
            action(owner, chosen)

        return act

    @friendly
    def remove(owner: str, chosen: str | None, certain: bool):
        if not certain:
            raise ValueError("tick the box first: a deleted run cannot be brought back")
        runs.delete(owner, chosen)
        return False

    asked = [owner, run]
    acted = [
        pause.click(doing(runs.pause), asked, None, **QUIET),
        go_on.click(doing(runs.go_on), asked, None, **QUIET),
        cancel.click(doing(runs.cancel), asked, None, **QUIET),
        delete.click(remove, [*asked, sure], sure, **QUIET),
    ]
    return (pause, go_on, cancel, sure, delete), acted


def _result(services: Services, header: Header, runs: Runs, run: gr.Dropdown) -> None:
    with gr.Row():
        use = gr.Button("Use the result in all tabs", variant="primary", elem_id="run-use")
        download_button(
            "Download the model (.zip)", lambda *which: _zip(runs, *which), [header.owner, run], "run-zip", size="md"
        )
    with gr.Accordion("See the difference on a photo", open=False), gr.Row():
        photo = photo_input("Photo", "run-photo", height=240)
        compared = gr.Gallery(
            label="Start, then result: attention and patch colours",
            columns=2,
            height="auto",
            buttons=[],
            format="jpeg",
            object_fit="contain",
            elem_id="run-compared",
        )
    with gr.Accordion("Publish on the Hugging Face hub", open=False, visible=not services.settings.public), gr.Row():
        repository = gr.Textbox(label="Repository", placeholder="me/my-backbone", elem_id="run-repository")
        token = gr.Textbox(label="Token with write access (used once, not kept)", type="password", elem_id="run-token")
        private = gr.Checkbox(True, label="Private: only you see it", elem_id="run-private")
        publish = gr.Button("Publish", elem_id="run-publish")
        published = gr.Markdown()

    @friendly
    def on_use(owner: str, chosen: str | None, tuned: tuple):
        info = runs.info(owner, chosen)
        path = str(result_folder(info))
        tuned = ((f"{info.name} · tuned", path), *(choice for choice in tuned if choice[1] != path))
        choices = [*tuned, *backbone_choices()]
        start = str(draw.read_json(info.path / "config.json").get("backbone", ""))
        compared_with = start if start in BACKBONES else ""
        return (
            gr.update(choices=choices, value=path),
            gr.update(choices=[("None", ""), *choices], value=compared_with),
            tuned,
        )

    @friendly
    def on_photo(owner: str, chosen: str | None, given: Photo | None, resolution: float):
        if given is None:
            raise ValueError("drop a photo first")
        info = runs.info(owner, chosen)
        names = str(info.path / "checkpoints" / "start"), str(result_folder(info))
        return before_and_after(services, given, names, int(resolution))

    @friendly
    def on_publish(owner: str, chosen: str | None, name: str, secret: str, hidden: bool):
        if services.settings.public:
            raise ValueError("this server publishes nothing; download the model and upload it yourself")
        address = publish_folder(result_folder(runs.info(owner, chosen)), name, secret, bool(hidden))
        return f"Published: [{name}]({address})", ""

    use.click(
        on_use, [header.owner, run, header.tuned], [header.backbone, header.comparison_picker, header.tuned], **QUIET
    )
    photo.upload(
        on_photo, [header.owner, run, photo, header.resolution], compared, **ENGINE_QUEUE, api_visibility="private"
    )
    publish.click(on_publish, [header.owner, run, repository, token, private], [published, token], **QUIET)


def before_and_after(services: Services, photo: Photo, names: tuple[str, str], resolution: int) -> list[tuple]:
    """Draw attention and patch colours of two backbones on one photo."""
    pictures = []
    for name, title in zip(names, ("start", "result"), strict=True):
        found = services.run(photo, name, resolution, attention=True).features
        colours = PatchPCA(foreground=None).fit([found]).transform(found)
        pictures += [
            (overlay(photo.rgb, attention_map(found)), f"{title}: attention"),
            (pca_picture(colours, photo.size), f"{title}: patch colours"),
        ]
    return [pictures[i] for i in (0, 2, 1, 3)]


def result_folder(info: RunInfo):
    """Return a folder with the run's result that later steps of the run will not change; raises ValueError if none."""
    export = info.path / "export"
    if not (export / "config.json").is_file():
        raise ValueError("this run has no result yet; wait for its first evaluation")
    step = draw.read_json(info.path / "report.json").get("best_step", 0) if info.over else info.step
    kept = info.path / "results" / f"{stem(info.name)}-{info.id[-4:]}-step-{step}"
    if not kept.is_dir():
        shutil.copytree(export, kept)
    return kept


def _zip(runs: Runs, owner: str, chosen: str | None) -> tuple[str, bytes]:
    info = runs.info(owner, chosen)
    return f"{stem(info.name)}-model.zip", draw.export_zip(info.path)


def _label(info: RunInfo) -> str:
    return f"{info.name} · {info.id[4:6]}-{info.id[6:8]} {info.id[9:11]}:{info.id[11:13]}"


def _size(path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
