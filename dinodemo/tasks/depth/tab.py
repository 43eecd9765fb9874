"""Depth tab: metres from one photo by a probe on frozen features; read, turn in space, compare, train."""

import gradio as gr

from ...io.images import load_photo
from ...web.components import ASSETS
from ...web.header import Header
from ...web.memory import remember
from ...web.services import Services
from ..base import RESOLUTION
from .batch_tab import build_batch
from .estimate_tab import compare_depth, wire_estimate, wire_look
from .layout_tab import OPENING, Memory, build_inputs, build_outputs
from .options import FLIP, GUIDED
from .probe_store import ProbeStore
from .probes_tab import wire_probes
from .training_tab import build_training


def build(services: Services, header: Header, tab: gr.Tab, page: gr.Blocks) -> None:
    """Build the three sub-tabs: one photo, many photos, and training a probe."""
    store = ProbeStore(services)
    memory = Memory(gr.State(None, time_to_live=4 * 3600), gr.State(None, time_to_live=4 * 3600), gr.State(()))
    with gr.Tabs():
        with gr.Tab("Estimate", id="depth-one-tab"), gr.Row(elem_classes="work"):
            with gr.Column(scale=2, min_width=320):
                inputs = build_inputs(services, store.ready(services.start.name))
            with gr.Column(scale=3, min_width=320):
                outputs = build_outputs(memory, inputs)
                compare_depth(store, header, outputs, memory, inputs)
        with gr.Tab("Many photos", id="depth-many-tab"):
            build_batch(store, header, memory.own, inputs)
        with gr.Tab("Train a probe", id="depth-train-tab"):
            trained = build_training(services, header, memory.own)
    services.openings.add(lambda backbone: _look_ahead(store, backbone))
    remember(page, "depth", [inputs.flip, inputs.guided, inputs.colour_map, inputs.inverse])
    choices = wire_probes(store, header, page, memory, inputs, trained)
    wire_estimate(store, header, tab, memory, inputs, outputs, choices)
    wire_look(memory, inputs, outputs)


def _look_ahead(store: ProbeStore, backbone: str) -> None:
    """Estimate the depth of the example, so that the tab opens with it."""
    if ready := store.ready(backbone):
        photo = load_photo(ASSETS / OPENING)
        store.estimate(ready[0][1], (), photo, backbone, RESOLUTION.default, FLIP.default, GUIDED.default)
