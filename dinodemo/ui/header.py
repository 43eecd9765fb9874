"""The row above all tabs: which backbone, at which resolution, at what price."""

from dataclasses import dataclass

import gradio as gr

from ..backbones import BACKBONES
from ..images import grid_size
from .errors import friendly
from .memory import browser_key, remember
from .services import ENGINE_QUEUE, Services, backbone_choices


@dataclass(frozen=True)
class Header:
    """Hold the shared controls.

    second: another backbone with which every tab draws its result again; empty for none.
    ready: changes when a backbone has been loaded or the resolution has changed.
    owner: the key that names this browser's indexes and runs.
    """

    backbone: gr.Dropdown
    second: gr.Dropdown
    resolution: gr.Slider
    ready: gr.State
    owner: gr.Textbox


def build_header(services: Services, page: gr.Blocks) -> Header:
    """Build the shared controls and their events; once a page is open it learns what the backbone costs here."""
    default = services.settings.backbone
    with gr.Row(elem_id="header"):
        backbone = gr.Dropdown(
            backbone_choices(), value=default, label="Backbone", allow_custom_value=True, elem_id="backbone",
            info="The network that makes the features; also a folder, a training run or a hub id.", scale=2,
        )  # fmt: skip
        second = gr.Dropdown(
            [("Nothing", ""), *backbone_choices()], value="", label="Beside it", allow_custom_value=True,
            elem_id="second-backbone", info="Draws every result again.", scale=2,
        )  # fmt: skip
        with gr.Column(scale=2):
            resolution = gr.Slider(
                224, 1022, value=518, step=14, label="Resolution", elem_id="resolution",
                info="Side of a square picture in pixels, as the network sees it; others keep their shape.",
            )  # fmt: skip
    cost = gr.Markdown(cost_line(services, default, 518), elem_id="cost")
    notice = gr.Markdown(notice_of(default), elem_id="notice")
    ready = gr.State((default, 518))

    @friendly
    def load(name: str, size: float, progress=gr.Progress(track_tqdm=True)):  # noqa: B008 (Gradio's way of asking for progress)
        progress(0, desc=f"Loading {name}")
        name = str(name).strip()
        engine = services.pool.get(name)
        if engine.backbone.name != name and name in BACKBONES:
            gr.Warning(engine.backbone.notice)
        return engine.backbone.notice, cost_line(services, name, size), (name, int(size))

    def price(name: str, size: float):
        return cost_line(services, name, size)

    @friendly
    def greet(name: str, size: float):
        return services.pool.get(name).backbone.notice, cost_line(services, name, size)

    @friendly
    def settle(name: str, size: float):
        return cost_line(services, name, size), (name, int(size))

    loading = backbone.change(load, [backbone, resolution], [notice, cost, ready], show_progress="full",
                    show_progress_on=[notice], api_visibility="private", **ENGINE_QUEUE)  # fmt: skip
    # what could not be loaded does not stay chosen
    loading.failure(lambda last: last[0], ready, backbone, show_progress="hidden", api_visibility="private")
    live = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
    resolution.input(price, [backbone, resolution], cost, **live)
    resolution.release(settle, [backbone, resolution], [cost, ready], **live)
    page.load(greet, [backbone, resolution], [notice, cost], **{**ENGINE_QUEUE, "show_progress": "hidden"},
              api_visibility="private")  # fmt: skip
    remember(page, "header", [resolution])
    return Header(backbone, second, resolution, ready, browser_key(page))


def notice_of(name: str) -> str:
    """Return what has to be said about a backbone of the table, empty if nothing."""
    row = BACKBONES.get(name)
    return row.notice if row else ""


def cost_line(services: Services, name: str, resolution: float) -> str:
    """Tell how many tokens a square picture makes, and how long they take once the speed is known."""
    row = BACKBONES.get(name)
    engine = services.pool.get(name) if name in services.pool.loaded() else None
    patch = engine.backbone.patch_size if engine else row.patch_size if row else 14
    h, w = grid_size((1, 1), int(resolution), patch)
    seconds = f", about {_duration(engine.estimate_seconds(h * w))} a picture here" if engine else ""
    return f"{h} × {w} = **{h * w} patch tokens**{seconds}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
