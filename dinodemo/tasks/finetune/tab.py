"""Fine-tune tab: photos in, settings, a run in the background that outlives the page, its result in every tab."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...jobs.runs import Runs
from ...train.config import FinetuneConfig, explanations, parse_set
from ...train.planning import TRUNK_SHARE, plan_views
from ...web.components import option_control
from ...web.errors import friendly
from ...web.events import QUIET
from ...web.header import Header
from ...web.memory import remember
from ...web.services import Services
from ...web.settings_list import read_edits, settings_list, settings_value
from ..base import Option
from . import draw
from .check_tab import build_check
from .photo_store import PhotoStore
from .photos_tab import PhotoParts, photo_parts, wire_photos
from .run_tab import build_run

ZERO_GPU = (
    "This Space lends a GPU for seconds at a time (ZeroGPU), which is too short for a training. It would run on the "
    "processor: enough for a small run. For more, duplicate the Space and choose a GPU of its own."
)
PHOTOS, LABELS, DISTILL, SCRATCH = "Photos alone", "Sharpen with my labels", "Self-distillation", "From scratch"
METHODS: dict[str, dict[str, Any]] = {
    PHOTOS: {"objective": "diet"},
    LABELS: {"objective": "labels"},
    DISTILL: {"objective": "dino"},
    SCRATCH: {"objective": "dino", "backbone": "scratch"},
}
METHOD_HELP = (
    "**Photos alone** makes each photo its own class and trains the last block: minutes on a processor, for photos "
    "unlike ordinary ones. **Sharpen with my labels** learns your class folders instead. **Self-distillation** is DINO "
    "itself, for a GPU and thousands of photos. **From scratch** forgets the backbone: to see how it begins."
)
METHOD = Option(
    "method", PHOTOS, "What to learn from", "how the backbone is trained on your photos", choices=tuple(METHODS)
)
TIMES = {"5 minutes": 5.0, "10 minutes": 10.0, "30 minutes": 30.0, "Overnight": 480.0}
TIME = Option("time", "10 minutes", "Time", "Wall time of the whole run; it ends earlier when it has learnt enough")
SWITCHES: dict[str, dict[str, Any]] = {
    "No centring": {"centering": "off", "koleo_weight": 0.0},
    "No moving average: the teacher copies the student": {"momentum_start": 0.0, "momentum_end": 0.0},
    "No masked patches (iBOT)": {"ibot_weight": 0.0},
}
SWITCH_HELP = (
    "Self-distillation has a way out: if teacher and student give the same answer to every photo, the loss is perfect "
    "and nothing is learnt. Centring (or Sinkhorn) forbids the same answer for all, the moving average keeps the "
    "teacher ahead of its student, masked patches keep patches from following CLS blindly. Switch one off and watch: "
    "the loss and the teacher's entropy go flat first, then *cosine between photos* climbs towards 1 and *effective "
    "rank* falls towards 1: collapse. The guard ends the run then, and hands back the start."
)


@dataclass(frozen=True)
class Parts:
    """The components of the first step."""

    photos: PhotoParts
    name: gr.Textbox
    method: gr.Radio
    time: gr.Radio
    demo: gr.Accordion
    switches: gr.CheckboxGroup
    fields: gr.HTML  # every setting; see `settings_list`
    command: gr.Code
    price: gr.Markdown
    start: gr.Button


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the tab: photos and settings, then the run and its result."""
    runs = services.runs
    store = PhotoStore(runs)
    with gr.Tabs() as steps:
        with gr.Tab("1. Photos and settings", id="tune-prepare"):
            parts = _parts(services)
            remember(page, "finetune", [parts.method, parts.time])
        with gr.Tab("2. Check the photos", id="tune-check"):
            selected = build_check(services, header, store, parts.photos.token)
        with gr.Tab("3. Run and result", id="tune-run"):
            started = build_run(services, header, runs, page)
    changes = wire_photos(services, header, page, store, parts.photos, selected)
    started(_wire_settings(services, header, runs, store, parts, steps, changes).success)


def _parts(services: Services) -> Parts:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            photos = photo_parts(services)
        with gr.Column(scale=1, min_width=320):
            name = gr.Textbox(label="Name of the run", value="my photos", max_length=60, elem_id="tune-name")
            method = option_control(METHOD, radio=True, elem_id="tune-method")
            gr.Markdown(METHOD_HELP, elem_id="tune-method-help")
            granted = [name for name, minutes in TIMES.items() if minutes <= 60 * services.runs.limits.hours]
            time = gr.Radio(
                granted or list(TIMES)[:1],
                value=TIME.default if TIME.default in granted else (granted or list(TIMES))[0],
                label=TIME.label,
                info=TIME.help,
                elem_id="tune-time",
            )
            price = gr.Markdown(elem_id="tune-price")
            start = gr.Button("Start", variant="primary", elem_id="tune-start")
            with gr.Accordion("Demo: collapse", open=False, visible=False) as demo:
                switches = gr.CheckboxGroup(list(SWITCHES), label="Switch off", elem_id="tune-switches")
                gr.Markdown(SWITCH_HELP)
    with gr.Accordion("All settings", open=False):
        fields = settings_list("tune-fields")
    command = gr.Code(
        label="The same on the command line", language="shell", interactive=False, elem_id="tune-command", max_lines=6
    )
    return Parts(photos, name, method, time, demo, switches, fields, command, price, start)


def _wire_settings(
    services: Services, header: Header, runs: Runs, store: PhotoStore, parts: Parts, tabs: gr.Tabs, events: list
):
    """Recompute the settings when photos or controls change; returns the event that starts a run."""
    chosen = [header.owner, parts.photos.token, parts.method, parts.time, parts.switches, header.backbone, parts.fields]
    settings = [parts.fields, parts.command, parts.price, parts.demo]

    @friendly
    def on_settings(
        owner: str, token: str | None, method: str, time: str, switches: list[str], backbone: str, fields: dict
    ):
        count = len(store.describe(owner, token).paths) if token else 100
        backbone, explicit = _explicit(method, time, switches, backbone)
        helps = explanations(METHODS[method]["objective"])
        edits = {name: text for name, text in read_edits(fields).items() if name in helps}
        explicit |= _parsed(edits)  # what was set by hand stays
        values = vars(FinetuneConfig.for_dataset(count, backbone, services.settings.device, **explicit))
        texts = {name: _text(values[name]) for name in helps if name != "backbone"}
        return (
            settings_value(texts, helps, edits),
            _command_line(backbone, explicit),
            _price(services, runs, backbone, values, count),
            gr.update(visible=METHODS[method]["objective"] == "dino"),
        )

    @friendly
    def on_start(
        owner: str,
        token: str | None,
        method: str,
        time: str,
        switches: list[str],
        backbone: str,
        fields: dict,
        name: str,
        request: gr.Request | None = None,
    ):
        photos = store.describe(owner, token)
        if method == LABELS and not photos.classes:
            raise ValueError(f"{LABELS!r} needs every photo in one of two or more folders; choose {PHOTOS!r} instead")
        backbone, explicit = _explicit(method, time, switches, backbone)
        if backbone != "scratch":
            services.pool.check(backbone)  # the training loads it in a process of its own
        helps = explanations(METHODS[method]["objective"])
        explicit |= _parsed({name: text for name, text in read_edits(fields).items() if name in helps})
        FinetuneConfig.for_dataset(len(photos.paths), backbone, services.settings.device, **explicit)  # raises if wrong
        runs.submit(owner, name, photos.folder, backbone, explicit, services.settings.device, _address(request))
        runs.tick()
        return gr.update(selected="tune-run")

    for event in events:
        event.success(on_settings, chosen, settings, **QUIET)
    controls = (parts.method, parts.time, parts.switches, header.backbone)
    for change in (parts.fields.input, *(control.change for control in controls)):
        change(on_settings, chosen, settings, **QUIET, trigger_mode="always_last")
    return parts.start.click(on_start, [*chosen, parts.name], tabs, **QUIET)


def _address(request: gr.Request | None) -> str:
    """Return where a request came from; behind a proxy on this machine nobody can tell."""
    client = getattr(request, "client", None)
    host = client.host if client else ""
    return "" if host in ("127.0.0.1", "::1", "localhost") else host


def _explicit(method: str, time: str, switches: list[str], backbone: str) -> tuple[str, dict]:
    """Return the backbone and the settings that method, time and switches ask for; raises ValueError."""
    if time not in TIMES:
        raise ValueError(f"the time has to be one of {', '.join(TIMES)}; got {time!r}")
    explicit = {**METHODS[METHOD.check(method)], "minutes": TIMES[time]}
    backbone = explicit.pop("backbone", backbone)
    for switch in (switches or []) if explicit["objective"] == "dino" else []:
        explicit |= SWITCHES[switch]
    return backbone, explicit


def _parsed(edits: dict[str, str]) -> dict:
    """Return settings that were typed; raises ValueError for a wrong one."""
    if "backbone" in edits:
        raise ValueError("the backbone is chosen at the top of the page, not among the settings")
    return parse_set(f"{name}={text}" for name, text in edits.items())


def _price(services: Services, runs: Runs, backbone: str, values: dict, photos: int) -> str:
    """Return what a run will roughly cost here, and what this server grants."""
    granted = f"This server ends a run after {runs.limits.hours:g} hours; what was learnt until then is kept."
    if services.settings.zero_gpu:
        granted = f"{granted} {ZERO_GPU}"
    minutes = values.get("minutes")
    ends = f"It ends within **{draw.duration(60 * minutes)}**, on a slow machine, too. " if minutes else ""
    if backbone not in services.pool.loaded():
        return ends + granted
    engine = services.pool.get(backbone)
    gigabytes = draw.expected_bytes(engine.backbone) / 1e9
    if minutes:
        return f"{ends}{_views(engine.estimate_seconds, values, engine.backbone.patch_size, photos)}{granted}"
    seconds = draw.expected_seconds(engine.estimate_seconds, values, engine.backbone, photos)
    if engine.device.type == "cpu":
        seconds *= (os.cpu_count() or 1) / runs.limits.threads  # training leaves cores to whoever waits for an answer
    return f"About **{draw.duration(seconds)}** and {gigabytes:.1f} GB of memory on this device. {granted}"


def _views(forward: Callable[[int], float], values: dict, patch_size: int, photos: int) -> str:
    """Return in a sentence how many views of each photo fit into a run's budget, by a measured forward pass."""
    if values["objective"] == "dino":
        return ""
    seconds = forward((values["global_size"] // patch_size) ** 2)
    rows = TRUNK_SHARE * 60 * values["minutes"] / max(seconds, 1e-6)
    views, used = plan_views(photos, rows, values["views"])
    some = "" if used == photos else f"; for more than {used} photos there is no time"
    return f"That is time for at least {views} views of each photo on this device{some}. "


def _text(value) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def _command_line(backbone: str, explicit: dict) -> str:
    settings = "".join(f" --set {name}={_text(value)}" for name, value in explicit.items())
    return f"dinodemo train PHOTOS --out RUN --backbone {backbone}{settings}"
