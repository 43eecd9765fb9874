"""The row above all tabs: which backbone, at which resolution, at what price."""

from dataclasses import dataclass

import gradio as gr

from ..backbones import BACKBONES, canonical_name
from ..io.images import grid_size
from ..tasks.base import RESOLUTION
from .components import option_control
from .errors import friendly
from .events import ENGINE_QUEUE, LIVE, QUIET
from .fetching import fetch_first, leave
from .memory import browser_key, remember
from .services import Services, backbone_choices

LEAST_ON_PAGE = 224  # pixels


@dataclass(frozen=True)
class Header:
    """Shared controls and what belongs to one person.

    comparison: name of another backbone with which every tab draws its result again, once it is here; empty for none.
    comparison_picker: where it is chosen. tuned: choices of the pickers besides the table's, this page's results.
    ready: changes when a backbone has been loaded or the resolution has changed.
    owner: the key that names this browser's indexes and runs.
    photo: the photo that was given last, in whichever tab (`io.images.Photo` or None).
    painted: (photo, mask (H, W) bool, a number never used before) for Segmentation to show as paint, or None.
    tabs: the tabs below, to open one of them.
    """

    backbone: gr.Dropdown
    comparison: gr.State
    comparison_picker: gr.Dropdown
    tuned: gr.State
    resolution: gr.Slider
    ready: gr.State
    owner: gr.Textbox
    photo: gr.State
    painted: gr.State
    tabs: gr.Tabs


@dataclass(frozen=True)
class Lines:
    """Components that show texts of the header."""

    cost: gr.Markdown
    notice: gr.Markdown
    download: gr.Markdown
    cancel: gr.Button


def build_facts(services: Services) -> tuple[gr.Markdown, gr.Markdown]:
    """Make the lines on what the backbone costs and on what has to be said of it."""
    default = services.start.name
    cost = gr.Markdown(cost_line(services, default, RESOLUTION.default), elem_id="cost")
    return cost, gr.Markdown(notice_of(default), elem_id="notice")


def build_header(services: Services, page: gr.Blocks, cost: gr.Markdown, notice: gr.Markdown) -> Header:
    """Build the shared controls and their events; once a page is open it learns what the backbone costs here."""
    default = services.start.name
    with gr.Row(elem_id="header"):
        backbone = gr.Dropdown(
            backbone_choices(),
            value=default,
            label="Backbone",
            allow_custom_value=True,
            elem_id="backbone",
            info="Model. Pick one, or type a local folder or Hugging Face id.",
            scale=2,
        )
        comparison = gr.Dropdown(
            [("None", ""), *backbone_choices()],
            value="",
            label="Compare with",
            allow_custom_value=True,
            elem_id="second-backbone",
            info="Shows a second model next to the first.",
            scale=2,
        )
        with gr.Column(scale=2):
            resolution = option_control(
                RESOLUTION.changed(low=LEAST_ON_PAGE),
                elem_id="resolution",
                info="Input size in pixels. Higher is sharper and slower.",
            )
    with gr.Row(elem_id="download-row"):
        download = gr.Markdown(elem_id="download")
        cancel = gr.Button(
            "Cancel the download", size="sm", visible=False, scale=0, min_width=200, elem_id="download-cancel"
        )
    lines = Lines(cost, notice, download, cancel)
    header = Header(
        backbone,
        gr.State(""),
        comparison,
        gr.State(()),
        resolution,
        gr.State((default, RESOLUTION.default)),
        browser_key(page),
        gr.State(None, time_to_live=4 * 3600),
        gr.State(None, time_to_live=4 * 3600),
        gr.Tabs(render=False),
    )
    _wire_start(services, page, header, lines)
    _wire_backbone(services, header, lines)
    _wire_comparison(services, header, lines)
    _wire_resolution(services, header, lines)
    remember(page, "header", [resolution])
    return header


def _wire_start(services: Services, page: gr.Blocks, header: Header, lines: Lines) -> None:
    """Show what the first start waits for, and the backbone that came of it."""

    @friendly
    def greet(name: str, size: float):
        start = services.start
        name = start.name if name == services.settings.backbone else name  # what nobody chose may have been replaced
        notice = services.pool.get(name).backbone.notice
        if start.problem:
            notice = f"{start.problem} {notice}".strip()
        choices = backbone_choices()
        compared = gr.update(choices=[("None", ""), *choices])
        return gr.update(value=name, choices=choices), compared, notice, cost_line(services, name, size)

    shown = [lines.download, lines.cancel, header.backbone]
    waiting = page.load(fetch_first(services), header.backbone, shown, concurrency_limit=None, **QUIET)
    waiting.then(
        greet,
        [header.backbone, header.resolution],
        [header.backbone, header.comparison_picker, lines.notice, lines.cost],
        **{**ENGINE_QUEUE, **QUIET},
    )


def _wire_backbone(services: Services, header: Header, lines: Lines) -> None:
    """Fetch what was chosen, outside of the engine's queue; then load it."""

    @friendly
    def load(name: str, size: float, tuned, progress=gr.Progress(track_tqdm=True)):  # noqa: B008 (Gradio's way of asking for progress)
        name = canonical_name(str(name).strip())
        progress(0, desc=f"Loading {name}")
        notice = services.pool.get(name).backbone.notice
        choices = [*tuned, *backbone_choices()]
        return (
            gr.update(value=name, choices=choices),
            gr.update(choices=[("None", ""), *choices]),
            notice,
            cost_line(services, name, size),
            (name, int(size)),
        )

    shown = [lines.download, lines.cancel, header.backbone]
    fetching = header.backbone.change(fetch_first(services), header.backbone, shown, concurrency_limit=None, **QUIET)
    loading = fetching.success(
        load,
        [header.backbone, header.resolution, header.tuned],
        [header.backbone, header.comparison_picker, lines.notice, lines.cost, header.ready],
        show_progress="full",
        show_progress_on=[lines.notice],
        api_visibility="private",
        **ENGINE_QUEUE,
    )
    for step in (fetching, loading):  # what could not be loaded does not stay chosen
        step.failure(
            lambda last: (last[0], "", gr.update(visible=False)),
            header.ready,
            [header.backbone, lines.download, lines.cancel],
            **QUIET,
        )
    lines.cancel.click(leave(services), [header.backbone, header.comparison_picker], None, queue=False, **QUIET)


def _wire_comparison(services: Services, header: Header, lines: Lines) -> None:
    picker, shown = header.comparison_picker, [lines.download, lines.cancel, header.comparison_picker]
    fetching = picker.change(fetch_first(services), picker, shown, concurrency_limit=None, **QUIET)
    fetching.success(lambda name: canonical_name(name or ""), header.comparison_picker, header.comparison, **QUIET)
    fetching.failure(
        lambda last: (last, "", gr.update(visible=False)),
        header.comparison,
        [header.comparison_picker, lines.download, lines.cancel],
        **QUIET,
    )


def _wire_resolution(services: Services, header: Header, lines: Lines) -> None:
    def price(name: str, size: float):
        return cost_line(services, name, size)

    @friendly
    def settle(name: str, size: float):
        return cost_line(services, name, size), (name, int(size))

    header.resolution.input(price, [header.backbone, header.resolution], lines.cost, **LIVE)
    header.resolution.release(settle, [header.backbone, header.resolution], [lines.cost, header.ready], **LIVE)


def notice_of(name: str) -> str:
    """Return what has to be said about a backbone of the table, empty if nothing."""
    row = BACKBONES.get(name)
    return row.notice if row else ""


def cost_line(services: Services, name: str, resolution: float) -> str:
    """Return how many tokens a square picture makes, and how long they take once the speed is known."""
    row = BACKBONES.get(name)
    engine = services.pool.get(name) if name in services.pool.loaded() else None
    patch = engine.backbone.patch_size if engine else row.patch_size if row else 14
    h, w = grid_size((1, 1), int(resolution), patch)
    seconds = f", about {_duration(engine.request_seconds(h * w))} a picture here" if engine else ""
    return f"{h} × {w} = **{h * w} patch tokens**{seconds}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
