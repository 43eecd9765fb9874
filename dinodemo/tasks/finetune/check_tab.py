"""Fine-tuning's check of the photos: what might be left out and why, what the folder shows, a better selection."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np
import pandas as pd

from ...io.images import fit_within, load_image
from ...train.planning import ORDINARY, Worth, ordinary_photos, weigh
from ...web.background import Work
from ...web.clicks import Choice
from ...web.errors import friendly
from ...web.events import QUIET, runs_network
from ...web.header import Header
from ...web.services import Services
from .photo_store import Photos, PhotoStore

if TYPE_CHECKING:
    from ...curation import Examination

RESOLUTION = 224
SHOWN = 120  # suggestions in the gallery
SURE = ("unreadable", "tiny", "copy", "near copy")  # kinds that are ticked at first
EMPTY = "Looks at every photo once and suggests what to leave out. Nothing is deleted; you decide."


@dataclass(frozen=True, eq=False)
class Checked:
    """What the check found in one folder, and which photos are to be left out."""

    photos: Photos
    examination: "Examination"
    suggestions: tuple
    label: np.ndarray  # cluster of each readable photo
    left_out: frozenset[Path]
    worth: Worth | None = None  # of training the network on these photos; None with fewer than two

    def toggle(self, path: Path) -> "Checked":
        """Leave a photo out, or keep it after all."""
        return replace(self, left_out=self.left_out ^ {path})

    def choose(self, kinds: list[str]) -> "Checked":
        """Leave out exactly the photos of some kinds."""
        return replace(self, left_out=frozenset(s.path for s in self.suggestions if s.kind in kinds))


@dataclass(frozen=True)
class Parts:
    """The tab's components."""

    check: gr.Button
    stop: gr.Button
    status: gr.Markdown
    kinds: gr.CheckboxGroup
    gallery: gr.Gallery
    plot: gr.ScatterPlot
    like: gr.Textbox
    most: gr.Number
    use: gr.Button
    checked: gr.State
    work: gr.State


def build_check(services: Services, header: Header, store: PhotoStore, photos: gr.State):
    """Build the sub-tab; returns a function that wires "a selection was made" to the components that show photos."""
    parts = _parts()

    @friendly
    def on_check(owner: str, token: str | None, backbone: str):
        found = store.describe(owner, token)
        job = Work(lambda progress: check(services, found, backbone, progress))
        yield job, gr.skip(), "Starting", gr.update(visible=True), *[gr.skip()] * 3
        for share, message in job.steps():
            yield gr.skip(), gr.skip(), f"{share:.0%} · {message}", *[gr.skip()] * 4
        yield None, job.result, summary(job.result), gr.update(visible=False), *shown(job.result)

    @friendly
    def on_use(owner: str, checked: Checked | None, like: str, most: float):
        if checked is None:
            raise ValueError("check the photos first")
        token = store.select(owner, checked.photos, left_out(checked, like, int(most or 0))).token
        return token, None, "The selection is in use; all photos stay where they are."

    run = runs_network(parts.status)
    shows = [parts.kinds, parts.gallery, parts.plot]
    checking = parts.check.click(
        on_check,
        [header.owner, photos, header.backbone],
        [parts.work, parts.checked, parts.status, parts.stop, *shows],
        **run,
    )
    checking.failure(lambda: (gr.update(visible=False), EMPTY), None, [parts.stop, parts.status], **QUIET)
    parts.stop.click(lambda job: job and job.stop(), parts.work, None, **QUIET)
    parts.kinds.input(
        lambda c, kinds: c and c.choose(kinds), [parts.checked, parts.kinds], parts.checked, **QUIET
    ).success(redraw, parts.checked, [parts.gallery, parts.status], **QUIET)
    parts.gallery.select(on_click, parts.checked, parts.checked, **QUIET).success(
        redraw, parts.checked, [parts.gallery, parts.status], **QUIET
    )
    used = parts.use.click(
        on_use, [header.owner, parts.checked, parts.like, parts.most], [photos, parts.checked, parts.status], **QUIET
    )
    return used.success


def _parts() -> Parts:
    with gr.Row():
        check_button = gr.Button("Check the photos", variant="primary", elem_id="check-start")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="check-stop")
    status = gr.Markdown(EMPTY, elem_id="check-status")
    kinds = gr.CheckboxGroup([], label="Leave out all of these", visible=False, elem_id="check-kinds")
    gallery = gr.Gallery(
        label="Click one to keep it or to leave it out",
        columns=6,
        height="auto",
        buttons=[],
        allow_preview=False,
        format="jpeg",
        object_fit="contain",
        visible=False,
        elem_id="check-gallery",
    )
    with gr.Row():
        like = gr.Textbox(
            label="Take the photos that resemble those whose path contains",
            max_lines=1,
            elem_id="check-like",
            info="Empty: evenly over what the folder shows.",
        )
        most = gr.Number(0, label="Take at most", precision=0, minimum=0, elem_id="check-most", info="0: all.")
        use = gr.Button("Use this selection", elem_id="check-use")
    with gr.Accordion("What the folder shows", open=False):
        plot = gr.ScatterPlot(
            pd.DataFrame({"x": [], "y": [], "cluster": []}),
            x="x",
            y="y",
            color="cluster",
            height=360,
            title="Each point a photo, near ones alike; colours: clusters",
            elem_id="check-plot",
        )
    return Parts(
        check_button,
        stop,
        status,
        kinds,
        gallery,
        plot,
        like,
        most,
        use,
        gr.State(None, time_to_live=4 * 3600),
        gr.State(None),
    )


def check(services: Services, photos: Photos, backbone: str, progress) -> Checked:
    """Examine a folder's photos with a backbone; progress(done, total, message) may stop it."""
    from ...curation import clusters, examine, suggest  # not above: they bring scikit-learn

    engine = services.pool.get(backbone)
    found = examine(
        engine, photos.paths, RESOLUTION, lambda done, total: progress(done, total, f"{done} of {total} photos")
    )
    checked = Checked(photos, found, tuple(suggest(found)), clusters(found), frozenset(), worth(engine, found.vectors))
    return checked.choose(list(SURE))


def worth(engine, vectors: np.ndarray) -> Worth | None:
    """Judge whether training a network on photos is worth it; None with fewer than two photos.

    Args:
        engine: With the network, which looks at the example photos where nothing is stored of it.
        vectors: Class tokens of the photos (n, D).
    """
    if len(vectors) < 2:
        return None
    name, ordinary = engine.backbone.name, None
    if name not in ORDINARY and len(ordinary_photos()) > 1:
        examples = [f.cls for f in engine.features_batch(ordinary_photos(), resolution=RESOLUTION)]
        ordinary = weigh(np.stack(examples), name).uniformity
    return weigh(vectors, name, ordinary)


def left_out(checked: Checked, like: str, most: int) -> set[Path]:
    """Return what a selection leaves out; raises ValueError when nothing would be left or no photo is meant."""
    from ...curation import balanced, kept, more_like

    rest = kept(checked.examination, checked.left_out)
    if like.strip():
        seeds = [path for path in rest if like.strip() in path.relative_to(checked.photos.folder).as_posix()]
        if not seeds:
            raise ValueError(f"no photo's path contains {like.strip()!r}")
        count = most or len(rest) // 2
        rest = (
            seeds[:count]
            + [p for p in more_like(checked.examination, seeds, len(checked.examination)) if p in set(rest)][
                : max(count - len(seeds), 0)
            ]
        )
    elif 0 < most < len(rest):
        rows = np.flatnonzero(np.isin([str(p) for p in checked.examination.paths], [str(p) for p in rest]))
        rest = balanced(_part(checked.examination, rows), most, checked.label[rows])
    if not rest:
        raise ValueError("nothing would be left; keep some photos")
    return set(checked.photos.paths) - set(rest)


def _part(found, rows: np.ndarray):
    tuples = {name: tuple(getattr(found, name)[i] for i in rows) for name in ("paths", "digests")}
    arrays = {name: getattr(found, name)[rows] for name in ("sizes", "vectors", "grey", "quality")}
    return replace(found, **tuples, **arrays)


def summary(checked: Checked | None) -> str:
    """Return in a line how many photos are left out, and whether training is worth it."""
    if checked is None:
        return EMPTY
    kinds = Counter(s.kind for s in checked.suggestions)
    what = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing to leave out"
    return f"**{len(checked.photos.paths)} photos** · {what} · {len(checked.left_out)} to be left out" + (
        (f" · the first {SHOWN} are shown" if len(checked.suggestions) > SHOWN else "")
        + (f"\n\n**Worth it?** {checked.worth.sentence}" if checked.worth else "")
    )


def shown(checked: Checked) -> tuple:
    """Return the updates of kinds, gallery and plot."""
    from ...curation import map2d

    kinds = Counter(s.kind for s in checked.suggestions)
    choices = [(f"{kind} ({count})", kind) for kind, count in kinds.items()]
    positions = map2d(checked.examination)
    points = pd.DataFrame({"x": positions[:, 0], "y": positions[:, 1], "cluster": [f"{i + 1}" for i in checked.label]})
    return (
        gr.update(choices=choices, value=[k for k in kinds if k in SURE], visible=bool(kinds)),
        gr.update(value=pictures(checked), visible=bool(kinds)),
        points,
    )


def pictures(checked: Checked) -> list[tuple[np.ndarray, str]]:
    """Draw the suggestions with their reasons."""
    drawn = []
    for suggestion in checked.suggestions[:SHOWN]:
        try:
            picture = fit_within(load_image(suggestion.path), 200)
        except ValueError:
            picture = np.full((120, 160, 3), 128, np.uint8)
        verb = "LEAVE OUT" if suggestion.path in checked.left_out else "keep"
        drawn.append((picture, f"{verb} · {suggestion.kind}: {suggestion.reason}"))
    return drawn


@friendly
def redraw(checked: Checked | None) -> tuple:
    """Redraw the suggestions after one was kept or left out."""
    return ([], EMPTY) if checked is None else (pictures(checked), summary(checked))


@friendly
def on_click(checked: Checked | None, event: Choice) -> Checked | None:
    """Toggle the clicked suggestion."""
    return checked and checked.toggle(event.of(checked.suggestions).path)
