"""Train a depth probe on uploaded pairs: curves, held-out pictures beside the truth, use, save."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np
import pandas as pd

from ...io.files import stem
from ...io.images import fit_within, load_photo
from ...io.render import colourise
from ...web.background import Work
from ...web.components import download_button, problem_list
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, QUIET
from ...web.header import Header
from ...web.services import Services
from . import draw
from .draw import Look
from .probe_store import Own

if TYPE_CHECKING:  # they need torch, which is loaded only once the page is served
    from . import DepthProbe, RGBDPair

KINDS = [("Four layers (better)", "lin4"), ("Last layer", "lin1")]
HELP = (
    "Upload a zip with photos and depth maps of the same names: `rgb/x.jpg` + `depth/x.png` (16-bit, millimetres), or "
    "`.npy` or `.exr` in metres. A fifth is held out, whole scenes or the end of the walk, to measure on. "
    "With 100 pairs it takes some minutes on two processor cores, nearly all of it to run the backbone once."
)
SHOWN = 4  # held-out pictures
PICTURE_SIDE = 320
CURVES = {"loss": "loss", "rmse": "RMSE, held out", "abs_rel": "AbsRel, held out", "delta1": "delta1, held out"}


@dataclass(frozen=True)
class Parts:
    """Hold the sub-tab's components."""

    pairs: gr.File
    name: gr.Textbox
    kind: gr.Radio
    epochs: gr.Slider
    relative: gr.Checkbox
    train: gr.Button
    stop: gr.Button
    status: gr.Markdown
    problems: gr.Markdown
    curve: gr.LinePlot
    pictures: gr.Gallery


def build_training(services: Services, header: Header, own: gr.State) -> Callable:
    """Build the sub-tab; returns the event that tells of a new probe in `own`."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(HELP)
            pairs = gr.File(label="Photos and depth maps (.zip)", height=120, elem_id="depth-pairs")
            name = gr.Textbox(label="Name of the probe", value="my probe", max_length=40, elem_id="depth-name")
            kind = gr.Radio(KINDS, value="lin4", label="Tokens of", elem_id="depth-kind")
            epochs = gr.Slider(
                1,
                100,
                value=20,
                step=1,
                label="Epochs",
                elem_id="depth-epochs",
                info="Stops early when the held-out pictures no longer improve.",
            )
            relative = gr.Checkbox(
                False, label="The depth maps have no scale (learn near and far only)", elem_id="depth-relative"
            )
            with gr.Row():
                train = gr.Button("Train", variant="primary", elem_id="depth-train")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="depth-train-stop")
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown("No probe of your own yet.", elem_id="depth-train-status")
            curve = gr.LinePlot(x="epoch", y="value", color="figure", height=260, elem_id="depth-curve")
            pictures = gr.Gallery(
                label="Held out: photo, true depth, estimate",
                columns=3,
                height="auto",
                buttons=[],
                format="jpeg",
                elem_id="depth-held-out",
                object_fit="contain",
            )
            problems = gr.Markdown(elem_id="depth-problems")
            download_button("Save the newest probe", _probe_file, [own], "depth-save")
    parts = Parts(pairs, name, kind, epochs, relative, train, stop, status, problems, curve, pictures)
    return _wire(services, header, own, parts)


def _wire(services: Services, header: Header, own: gr.State, parts: Parts) -> Callable:
    outputs = [own, parts.status, parts.problems, parts.curve, parts.pictures, parts.stop]
    work = gr.State(None)

    @friendly
    def on_train(
        path, mine: Own, name: str, kind: str, epochs: float, relative: bool, backbone: str, resolution: float
    ):
        from . import DepthProbe, read_pairs

        if path is None:
            raise ValueError("there are no pairs yet; drop a zip first")
        with tempfile.TemporaryDirectory(prefix="dinodemo-pairs-") as folder:
            found, problems = read_pairs(path, out=folder)
            probe = DepthProbe(kind, epochs=int(epochs), resolution=int(resolution), relative=bool(relative))
            engine = services.pool.get(backbone)
            groups = [pair.group for pair in found]
            job = Work(
                lambda progress: probe.fit(
                    engine,
                    found,
                    groups=groups if len(set(groups)) > 1 else None,
                    progress=progress,
                    data=f"{len(found)} pairs of {Path(path).name}",
                )
            )
            yield job, gr.skip(), f"{len(found)} pairs", problem_list(problems), None, [], gr.update(visible=True)
            for share, message in job.steps():
                curve = curve_of(probe.curve_) if probe.curve_ else gr.skip()
                yield (*[gr.skip()] * 2, f"{share:.0%} · {message}", gr.skip(), curve, gr.skip(), gr.skip())
            pictures = held_out_pictures(probe, engine, found)
            label = " ".join(name.split()) or "my probe"
            kept = tuple(row for row in mine if row[0] != label)
            yield (
                None,
                (*kept, (label, probe)),
                f"Trained **{label}**; it is picked in the first tab. {probe.note_}",
                gr.skip(),
                curve_of(probe.curve_),
                pictures,
                gr.update(visible=False),
            )

    def on_stop(job: Work | None):
        if job is not None:
            job.stop()
        return gr.update(visible=False)

    inputs = [
        parts.pairs,
        own,
        parts.name,
        parts.kind,
        parts.epochs,
        parts.relative,
        header.backbone,
        header.resolution,
    ]
    event = parts.train.click(
        on_train, inputs, [work, *outputs], **ENGINE_QUEUE, api_visibility="private", show_progress_on=[parts.status]
    )
    parts.stop.click(on_stop, work, parts.stop, **QUIET)
    event.failure(lambda: ("Not trained.", gr.update(visible=False)), None, [parts.status, parts.stop], **QUIET)
    return event.success


def curve_of(rows: list[dict]) -> pd.DataFrame:
    """Return the curve as a table of epoch, figure, value."""
    points = [
        (row["epoch"], label, float(row[key]))
        for row in rows
        for key, label in CURVES.items()
        if row.get(key) is not None
    ]
    return pd.DataFrame(points, columns=["epoch", "figure", "value"])


def held_out_pictures(probe: "DepthProbe", engine, pairs: list["RGBDPair"]) -> list[tuple[np.ndarray, str]]:
    """Draw photo, truth and estimate of a few held-out pairs, in the truth's range."""
    from .metrics import align

    pictures = []
    for i in probe.held_out_[:: max(1, len(probe.held_out_) // SHOWN)][:SHOWN]:
        photo, truth = load_photo(pairs[i].image), np.asarray(pairs[i].depth)
        depth = probe.predict(engine, photo)
        known = truth > 0
        look = Look(*draw.natural_range(truth[known][:, None]), "inferno", False)
        if probe.unit_ == "relative":
            rows, columns = (np.linspace(0, n - 1, m, dtype=int) for n, m in zip(depth.shape, truth.shape, strict=True))
            depth = align(depth[rows][:, columns], truth)
        drawn = np.where(known[..., None], colourise(draw.shade(truth, look)), 0).astype(np.uint8)
        for picture, caption in (
            (photo.rgb, pairs[i].name),
            (drawn, f"truth, {look.near} to {look.far}"),
            (colourise(draw.shade(depth, look)), "estimate"),
        ):
            pictures.append((fit_within(picture, PICTURE_SIDE), caption))
    return pictures


def _probe_file(own: Own) -> tuple[str, bytes]:
    if not own:
        raise ValueError("there is no probe of your own yet; train one first")
    name, probe = own[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.safetensors"
        probe.save(path)
        return f"depth-{stem(name)}.safetensors", path.read_bytes()
