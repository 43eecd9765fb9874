"""The target side of the tab: photos to search, results, and what a person answers to them."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np

from ...io.images import Photo
from ...web.clicks import Choice
from ...web.comparison import comparison_image
from ...web.components import DROP_HEIGHT, download_button, option_control
from ...web.errors import friendly
from ...web.events import LIVE, QUIET
from . import draw
from .draw import Look, Reference
from .references import DEFAULT_NAME, MOST_TARGETS
from .search_tab import Answers, Found, clean_name

EMPTY = "Scribble on an object, add photos to search, then click Find it."
MOST_ANSWERS = 20


@dataclass(frozen=True)
class ResultParts:
    """The components of the target side."""

    targets: gr.File
    target: gr.Radio
    tray: gr.File
    find: gr.Button
    stop: gr.Button
    picture: gr.Image
    comparison: gr.Image
    gallery: gr.Gallery
    status: gr.Markdown
    instances: gr.CheckboxGroup
    threshold: gr.Slider
    opacity: gr.Slider
    view: gr.Radio
    presence: gr.Slider
    found: gr.State
    question: gr.Row
    yes: gr.Button
    no: gr.Button
    answers: gr.State  # Answers

    def look(self) -> list:
        """Return what `Look` is made of."""
        return [self.threshold, self.opacity, self.view, self.presence]


def result_parts() -> ResultParts:
    """Make the components of the target side."""
    search = _search_parts()
    status = gr.Markdown(EMPTY, elem_id="seg-status")
    selected, (threshold, opacity, presence, view) = _selected_parts()
    with gr.Accordion("Photos without it (optional)", open=False):
        tray = gr.File(
            label="Photos that do not show it: they set the bound",
            file_count="multiple",
            height=110,
            elem_id="seg-tray",
        )
    found = gr.State(None, time_to_live=4 * 3600)
    gallery = gr.Gallery(
        label="All photos, the best match first: click one to select it",
        columns=3,
        height="auto",
        allow_preview=False,
        buttons=[],
        elem_id="seg-gallery",
        elem_classes="shaped small",
        format="jpeg",
        object_fit="contain",
    )
    look = [threshold, opacity, view, presence]
    download_button(
        "Download all: masks, cut-outs, COCO, counts (.zip)", _zip_file, [found, *look], "seg-zip", size="md"
    )
    return ResultParts(
        **search,
        **selected,
        tray=tray,
        gallery=gallery,
        status=status,
        threshold=threshold,
        opacity=opacity,
        view=view,
        presence=presence,
        found=found,
        answers=gr.State(Answers()),
    )


def _search_parts() -> dict[str, Any]:
    """Make what is searched, and the buttons that start and stop it."""
    with gr.Row():
        targets = gr.File(
            label=f"2. Photos to search (up to {MOST_TARGETS})",
            file_count="multiple",
            height=DROP_HEIGHT,
            min_width=240,
            elem_id="seg-targets",
        )
        with gr.Column(min_width=240):
            target = option_control(draw.TARGET, radio=True, elem_id="seg-target")
            with gr.Row():
                find = gr.Button("3. Find it", variant="primary", elem_id="seg-find", min_width=110)
                stop = gr.Button("Stop", variant="stop", elem_id="seg-stop", visible=False, min_width=80)
    return {"targets": targets, "target": target, "find": find, "stop": stop}


def _selected_parts() -> tuple[dict[str, Any], tuple]:
    """Make the selected photo with the controls that redraw beside it, the question about it, and its objects."""
    with gr.Row():
        picture = gr.Image(
            label="Selected photo",
            format="jpeg",
            interactive=False,
            elem_id="seg-picture",
            elem_classes="main-picture low",
            scale=2,
            buttons=["fullscreen"],
        )
        comparison = comparison_image("seg-second")
        with gr.Column(min_width=210):
            look = _look_controls()
    with gr.Row(visible=False) as question:
        no = gr.Button("It is not here", size="sm", elem_id="seg-no")
        yes = gr.Button("Yes, also this", size="sm", elem_id="seg-yes")
    instances = gr.CheckboxGroup(
        [], label="Objects found (untick what is wrong)", elem_id="seg-instances", visible=False
    )
    asked = {"question": question, "yes": yes, "no": no}
    return {"picture": picture, "comparison": comparison, "instances": instances, **asked}, look


def _look_controls() -> tuple[gr.Slider, gr.Slider, gr.Slider, gr.Radio]:
    """Make the controls that only redraw."""
    threshold = option_control(
        draw.THRESHOLD.changed(low=0.02, high=0.98), elem_id="seg-threshold", info="Lower values select more"
    )
    view = option_control(draw.VIEW, radio=True, elem_id="seg-view")
    with gr.Accordion("More settings", open=False):
        opacity = option_control(draw.OPACITY, elem_id="seg-opacity")
        presence = option_control(
            draw.PRESENCE,
            elem_id="seg-presence",
            info="Photos below are unsure (outline only) or not here; 0 always paints.",
        )
    return threshold, opacity, presence, view


def wire_results(result: ResultParts) -> None:
    """Wire the controls that only redraw."""
    inputs = [result.found, *result.look()]
    selected = [result.picture, result.instances, result.question]
    everything = [*selected, result.gallery]
    result.gallery.select(select, result.found, result.found, **QUIET).success(show_one, inputs, selected, **QUIET)
    result.threshold.input(show_one, inputs, selected, **LIVE)
    result.threshold.release(show_all, inputs, everything, **LIVE)
    result.opacity.change(show_one, inputs, selected, **LIVE)
    result.presence.release(show_all, inputs, everything, **LIVE)
    result.view.change(show_all, inputs, everything, **LIVE)
    result.instances.input(on_toggle, [result.instances, *inputs], [result.found, result.picture], **LIVE).success(
        show_thumbs, inputs, result.gallery, **QUIET
    )


@friendly
def select(found: Found | None, event: Choice) -> Found | None:
    """Remember which photo was clicked."""
    return None if found is None else Found(found.held, found.made_with, event.index)


@friendly
def show_one(found: Found | None, *look) -> tuple:
    """Draw the selected photo, list its objects, and ask whether they are right."""
    _check(found)
    if found is None or not found.results:
        return None, gr.update(choices=[], value=[], visible=False), gr.update(visible=False)
    result = _selected(found)
    shown = draw.look_at(result, Look(*look))
    choices = [(f"{part.number}: {part.area / shown.mask.size:.1%}", part.number) for part in shown.instances]
    ticked = [number for _, number in choices if number not in result.hidden]
    picture = gr.update(value=draw.draw_result(shown), label=draw.caption(shown))
    return picture, gr.update(choices=choices, value=ticked, visible=bool(choices)), gr.update(visible=True)


@friendly
def show_thumbs(found: Found | None, *look) -> list:
    """Draw all photos small."""
    return [] if found is None else draw.draw_thumbs(list(found.results), Look(*look))


def show_all(found: Found | None, *look) -> tuple:
    """Draw the selected photo and all small ones."""
    return *show_one(found, *look), show_thumbs(found, *look)


@friendly
def on_toggle(shown: list[int], found: Found | None, *look) -> tuple:
    """Switch parts of the selected photo on and off."""
    before, asked = _selected(found), Look(*look)
    assert found is not None
    changed = draw.toggle(draw.look_at(before, asked), shown)
    found.held.results = tuple(changed if one is before else one for one in found.results)
    return found, draw.draw_result(draw.look_at(changed, asked))


@friendly
def answer_no(found: Found | None, answers: Answers) -> Answers:
    """Remember that the selected photo does not show the object."""
    result = _selected(found)
    if any(photo.digest == result.photo.digest for photo in answers.absent):
        return answers
    return replace(answers, absent=(*answers.absent, result.photo)[-MOST_ANSWERS:])


@friendly
def answer_yes(found: Found | None, answers: Answers, name: str, *look) -> Answers:
    """Remember what was found on the selected photo, sure or not, as a further reference."""
    result = _selected(found)
    asked = Look(*look)
    shown = draw.look_at(result, replace(asked, min_presence=0.0))
    if not shown.mask.any():
        raise ValueError("nothing is marked on this photo; lower the threshold until the object is")
    reference = Reference(result.photo, shown.mask, np.zeros_like(shown.mask), clean_name(name) or DEFAULT_NAME)
    kept = [r for r in answers.also if r.photo.digest != result.photo.digest]
    absent = tuple(photo for photo in answers.absent if photo.digest != result.photo.digest)
    return Answers(absent, (*kept, reference)[-MOST_ANSWERS:])


def selected_photo(found: Found | None) -> Photo:
    """Return the selected photo; raises ValueError if there is none."""
    return _selected(found).photo


def _selected(found: Found | None) -> draw.Result:
    _check(found)
    if found is None or not found.results:
        raise ValueError("there is nothing to answer any more; find something again")
    return found.results[min(found.selected, len(found.results) - 1)]


def _check(found: Found | None) -> None:
    if found is not None and found.held.gone:
        raise ValueError("these results were let go, because others needed the server's memory; find them again")


def _zip_file(found: Found | None, *look) -> tuple[str, bytes]:
    _check(found)
    if found is None or not found.results:
        raise ValueError("there is nothing to download yet; find something first")
    return draw.zip_file(list(found.results), Look(*look), found.made_with)
