"""Parts that several tabs use: photo input, example photos, downloads."""

import html
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio import component_meta

from ..io import clock
from ..io.images import DISPLAY_SIDE, LONGEST_SIDE, Photo, fit_within, load_photo
from ..tasks.base import COLOUR_MAP, Option
from .clicks import Choice
from .errors import friendly
from .events import QUIET, Options
from .examples import ASSETS, Opening, when_opened

BROWSER_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp")
DROP_HEIGHT = 120  # pixels of the fields that photos are dropped on
DOWNLOAD_AGE = 3600  # seconds that a prepared download is kept


def example_photos() -> list[str]:
    """Return the paths of the shipped photos."""
    return [str(path) for path in sorted(ASSETS.glob("*.jpg"))]


def browser_copy(photo: Photo):
    """Return the photo as an array if browsers cannot show its file, or show it otherwise than it was read.

    To be called once a photo has come: the page then tells how its numbers were read, where that had to be decided.
    """
    show_notes(photo)
    shown = Path(photo.name).suffix.lower() in BROWSER_SUFFIXES and not photo.notes
    return gr.skip() if shown else fit_within(photo.rgb, DISPLAY_SIDE)


def show_notes(photo: Photo) -> None:
    """Show on the page how a photo's numbers were read, where that had to be decided."""
    for note in photo.notes:
        gr.Info(f"{html.escape(photo.name)}: {note}")


def example_gallery(elem_id: str) -> gr.Gallery:
    """Return a strip of the shipped photos; its select event names the one that was taken."""
    return gr.Gallery(
        example_photos(),
        label="Examples",
        show_label=False,
        columns=9,
        height="auto",
        buttons=[],
        allow_preview=False,
        elem_id=elem_id,
        elem_classes="examples",
        object_fit="cover",
    )


@friendly
def decode_upload(path: str | Path, name: str | None = None) -> Photo:
    """Return an uploaded photo; raises gr.Error with the reason.

    Args:
        path: Of the upload.
        name: That the file had on the person's machine.
    """
    return load_photo(path, name, LONGEST_SIDE)


def read_photos(paths: Sequence[str], most: int) -> list[Photo]:
    """Return uploaded photos; bad ones are named in a warning and left out.

    Args:
        paths: Of the uploads, in their order.
        most: How many are used.

    Raises:
        ValueError: If none can be read.
    """
    if len(paths) > most:
        gr.Warning(f"The first {most} of {len(paths)} photos are used.")
    photos = []
    for path in paths[:most]:
        try:
            photos.append(load_photo(path, longest=LONGEST_SIDE))
            show_notes(photos[-1])
        except ValueError as error:
            gr.Warning(f"Left out: {error}.")
    if paths and not photos:
        raise ValueError("none of these files is a picture that can be read")
    return photos


@contextmanager
def _without_stub():
    """Keep Gradio from writing a .pyi file for a new component beside its source, which may lie in site-packages."""
    write = component_meta.create_or_modify_pyi
    component_meta.create_or_modify_pyi = lambda *_: None
    try:
        yield
    finally:
        component_meta.create_or_modify_pyi = write


with _without_stub():

    class PhotoInput(gr.Image):
        """Take an image and hand a `Photo` (or None) to handlers, read by our own decoder.

        Gradio's own reader fails without a message on damaged files and decodes before any size check. A class and not
        a patched instance, because Gradio makes a new instance from it whenever a handler updates a component.
        """

        is_template = True  # the browser's side is gr.Image's

        def preprocess(self, payload) -> Photo | None:  # type: ignore[override]  # Gradio hands on what it is given
            """Decode an upload; raises gr.Error with the reason."""
            return decode_upload(payload.path, payload.orig_name) if payload else None


def photo_input(label: str, elem_id: str, **options) -> PhotoInput:
    """Return a photo input in the app's look.

    Args:
        label: Of the input.
        elem_id: Of the input.
        **options: Of Gradio's component.
    """
    return PhotoInput(
        label=label,
        elem_id=elem_id,
        elem_classes="photo-input",
        sources=["upload", "clipboard", "webcam"],
        buttons=["fullscreen"],
        **options,
    )


def wire_photo(
    photo: PhotoInput,
    examples: gr.Gallery,
    take: Callable[..., Sequence],
    inputs: Sequence,
    outputs: Sequence,
    empty: Sequence,
    current: gr.State,
    tab: gr.Tab,
    opening: Opening,
    run: Options = QUIET,
    again: Sequence[Callable] = (),
    fresh: Callable[..., bool] = lambda *_: False,
) -> list[Any]:
    """Wire the photo of a tab: uploaded, taken from the examples, brought along from another tab, or removed.

    A photo that cannot be read, or fails in `take`, empties the tab: nothing of the photo before stays on the page.

    Args:
        photo: where photos are dropped.
        examples: the strip made by `example_gallery`.
        take: `take(photo, *inputs)` returns the values of `outputs`.
        inputs: components that `take` depends on.
        outputs: components that it fills.
        empty: values of `outputs` while there is no photo.
        current: the person's latest photo, whichever tab it came from.
        tab: opening it takes the current photo if that is another than the tab's own, the example if there is none.
        opening: what the tab shows before anybody gave a photo.
        run: options of the events that call `take`.
        again: event listeners after which the tab's own photo is taken anew.
        fresh: `fresh(*inputs)` tells whether the outputs already hold what `take` would return for the same photo.

    Returns:
        The events after which the outputs have changed.
    """
    own = gr.State(None, time_to_live=4 * 3600)
    choices = gr.State([])  # grows with each photo that is given, so that the example never replaces one
    hidden = gr.update(visible=False)
    on_photo, on_tab, on_again = _photo_handlers(take, fresh, opening, len(outputs))

    @friendly
    def pick(event: Choice):
        return event.of(example_photos())

    emptied = [*outputs, photo, own, current, opening.mark]
    picked = examples.select(pick, None, photo, **QUIET)  # the photo is seen before its result is there
    events = [start(on_photo, [photo, choices, *inputs], emptied, **run) for start in (photo.upload, picked.success)]
    events += [event.failure(lambda: (*empty, None, None, None, hidden), None, emptied, **QUIET) for event in events]
    events.append(photo.clear(lambda: (*empty, None, None), None, [*outputs, own, current], **QUIET))
    opened = when_opened(tab, opening.start)
    filled = [*outputs, photo, own, opening.mark]
    events.append(opened.success(on_tab, [current, own, choices, *inputs], filled, **run))
    return events + [trigger(on_again, [own, *inputs], list(outputs), **run) for trigger in again]


def _photo_handlers(
    take: Callable[..., Sequence], fresh: Callable[..., bool], opening: Opening, count: int
) -> tuple[Callable, ...]:
    """Return what follows a new photo, the opening of the tab, and a change of what `take` depends on."""
    nothing = [gr.skip()] * (count + 3)
    hidden, shown = gr.update(visible=False), gr.update(visible=True)

    @friendly
    def on_photo(given: Photo | None, chosen: list, *values):
        if given is None:
            raise ValueError("no photo was given; drop one on the field first")
        chosen.append(True)
        return *take(given, *values), browser_copy(given), given, given, hidden

    @friendly
    def on_tab(latest: Photo | None, before: Photo | None, chosen: list, *values):
        wanted = latest or before
        if wanted is None and opening.photo and not chosen:
            made = take(load_photo(opening.photo), *values)
            return nothing if chosen else [*made, gr.skip(), load_photo(opening.photo), shown]
        same = wanted is not None and before is not None and wanted.digest == before.digest
        if wanted is None or (same and fresh(*values)):
            return nothing
        seen = (gr.skip(), gr.skip()) if same else (fit_within(wanted.rgb, DISPLAY_SIDE), hidden)
        return *take(wanted, *values), seen[0], wanted, seen[1]

    @friendly
    def on_again(before: Photo | None, *values):
        return nothing[3:] if before is None or fresh(*values) else take(before, *values)

    return on_photo, on_tab, on_again


def option_control(option: Option, radio: bool = False, **more: Any) -> Any:
    """Return the component of an option: a checkbox, a dropdown or a slider, as its default and choices say.

    Args:
        option: Gives label, default, range and help.
        radio: Show choices next to each other, not in a list that opens.
        **more: Arguments of Gradio's component.
    """
    label = more.pop("label", option.label)
    if isinstance(option.default, bool):
        return gr.Checkbox(option.default, label=label, **more)
    if option.choices:
        choices = list(zip(option.labels or option.choices, option.choices, strict=True))
        return (gr.Radio if radio else gr.Dropdown)(choices, value=option.default, label=label, **more)
    return gr.Slider(option.low, option.high, value=option.default, step=option.step, label=label, **more)


def colour_map_picker() -> gr.Dropdown:
    """Return the picker of colour maps."""
    return option_control(COLOUR_MAP, min_width=120)


def download_button(
    label: str,
    make: Callable[..., tuple[str, bytes]],
    inputs: Sequence,
    elem_id: str,
    size: Literal["sm", "md", "lg"] = "sm",
) -> gr.Button:
    """Return a button whose file is produced when it is clicked.

    Args:
        label: Of the button.
        make: make(*inputs) returns (file name, content).
        inputs: Components whose values `make` is given.
        elem_id: Of the button.
        size: Of the button.
    """
    button = gr.Button(label, size=size, elem_id=elem_id)
    carrier = gr.DownloadButton(visible="hidden", elem_id=f"{elem_id}-file")

    @friendly
    def prepare(*values):
        return write_download(*make(*values))

    # Gradio's DownloadButton only offers a file that existed before the click
    click = f"() => setTimeout(() => document.querySelector('#{elem_id}-file')?.click(), 150)"
    button.click(prepare, list(inputs), carrier, show_progress="hidden", api_visibility="private").success(
        None, None, None, js=click
    )
    return button


def write_download(name: str, content: bytes) -> str:
    """Write a file for download into a folder of its own and return its path.

    Args:
        name: Of the file.
        content: Of the file.
    """
    path = passing_folder() / name.replace("/", "_")
    path.write_bytes(content)
    return str(path)


def passing_folder() -> Path:
    """Return a fresh folder with an unguessable name that lives for an hour; older ones are removed."""
    root = Path(tempfile.gettempdir()) / "dinodemo-downloads"
    root.mkdir(mode=0o700, exist_ok=True)
    for old in root.iterdir():
        if clock.age(old.stat().st_mtime) > DOWNLOAD_AGE:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=root))


def problem_list(problems: list[tuple[str, str]], most: int = 30) -> str:
    """Return a list, in Markdown, of files that were left out, and why.

    Args:
        problems: (file, reason) each.
        most: Files that are named; the others are counted.
    """
    if not problems:
        return ""
    lines = "\n".join(f"- {name}: {reason}" for name, reason in problems[:most])
    more = f"\n- and {len(problems) - most} more" if len(problems) > most else ""
    return f"\n\nLeft out:\n{lines}{more}"
