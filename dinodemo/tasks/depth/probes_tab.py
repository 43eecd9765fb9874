"""The wiring of the probe pickers: what fits the backbone, what a person loaded or trained."""

from functools import partial
from pathlib import Path

import gradio as gr

from ...web.errors import friendly
from ...web.events import QUIET
from ...web.header import Header
from .layout_tab import Inputs, Memory
from .probe_store import Own, ProbeStore


def wire_probes(store: ProbeStore, header: Header, page: gr.Blocks, memory: Memory, inputs: Inputs, trained) -> list:
    """Keep the list of probes true to backbone and own probes; returns events after which the depth may be stale."""
    pickers = [inputs.probe, inputs.other]
    picked = partial(offer, store)

    @friendly
    def on_load(path: str | None, own: Own, backbone: str, other: str | None):
        if path is None:
            return (gr.skip(),) * 3
        own = (*own, (Path(path).stem, load_probe(path, backbone)))
        return own, *picked(backbone, own, None, other, newest=True)

    asked = [header.backbone, memory.own, *pickers]
    page.load(picked, asked, pickers, **QUIET)
    changed = [
        header.ready.change(picked, asked, pickers, **QUIET),
        inputs.loader.upload(
            on_load, [inputs.loader, memory.own, header.backbone, inputs.other], [memory.own, *pickers], **QUIET
        ),
        trained(
            lambda backbone, own, chosen, other: picked(backbone, own, chosen, other, newest=True),
            asked,
            pickers,
            **QUIET,
        ),
    ]
    return [event.success for event in changed]


def offer(store: ProbeStore, backbone: str, own: Own, chosen: str | None, other: str | None, newest: bool = False):
    """Return both lists of probes; the newest own one is picked where `newest`, else what was picked stays."""
    rows = store.choices(backbone, own)
    keys = [key for _, key in rows]
    fits = [key for key in keys if not key.startswith("dpt:")]
    kept = chosen if chosen in keys and not newest else (fits[0] if fits else None)
    return (
        gr.update(choices=rows, value=kept),
        gr.update(choices=[("None", ""), *rows], value=other if other in keys else ""),
    )


def load_probe(path: str, backbone: str):
    """Read an uploaded probe or published head; warns where it was made for another backbone."""
    from . import DepthProbe

    probe = DepthProbe.from_meta(path) if path.lower().endswith(".pth") else DepthProbe.load(path)
    if probe.backbone_ != backbone:
        gr.Warning(f"This probe was made for {probe.backbone_}; choose that backbone to use it.")
    return probe
