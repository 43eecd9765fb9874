"""Parts that several tabs use: photo input, example photos, downloads."""

import html
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio import component_meta

from ..io.files import resource_folder
from ..io.images import DISPLAY_SIDE, LONGEST_SIDE, Photo, fit_within, load_photo
from ..tasks.base import COLOUR_MAP, Option
from .errors import friendly

ASSETS = resource_folder("assets")
BROWSER_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp")
DOWNLOAD_AGE = 3600  # seconds that a prepared download is kept


def example_photos() -> list[str]:
    """List the shipped photos."""
    return [str(path) for path in sorted(ASSETS.glob("*.jpg"))]


def browser_copy(photo: Photo):
    """Return the photo as an array if browsers cannot show its file, or show it otherwise than it was read."""
    shown = Path(photo.name).suffix.lower() in BROWSER_SUFFIXES and not photo.notes
    return gr.skip() if shown else fit_within(photo.rgb, DISPLAY_SIDE)


def example_gallery(elem_id: str) -> gr.Gallery:
    """Make a strip of the shipped photos; its select event tells which one was taken."""
    return gr.Gallery(
        example_photos(),
        label="Examples",
        show_label=False,
        columns=5,
        height="auto",
        buttons=[],
        allow_preview=False,
        elem_id=elem_id,
        elem_classes="examples",
        object_fit="cover",
    )


@friendly
def decode_upload(path: str | Path, name: str | None = None) -> Photo:
    """Read an uploaded file and tell what had to be decided for it; raises gr.Error with the reason."""
    photo = load_photo(path, name, LONGEST_SIDE)
    for note in photo.notes:
        gr.Info(f"{html.escape(photo.name)}: {note}")
    return photo


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
    """Make a photo input in the app's look."""
    return PhotoInput(
        label=label, elem_id=elem_id, sources=["upload", "clipboard", "webcam"], buttons=["fullscreen"], **options
    )


def option_control(option: Option, **more: Any) -> Any:
    """Make the component of an option: a checkbox, a dropdown or a slider, as its default and choices say."""
    label = more.pop("label", option.label)
    if isinstance(option.default, bool):
        return gr.Checkbox(option.default, label=label, **more)
    if option.choices:
        return gr.Dropdown(list(option.choices), value=option.default, label=label, **more)
    return gr.Slider(option.low, option.high, value=option.default, step=option.step, label=label, **more)


def colour_map_picker() -> gr.Dropdown:
    """Make the picker of colour maps."""
    return option_control(COLOUR_MAP, min_width=120)


def download_button(
    label: str,
    make: Callable[..., tuple[str, bytes]],
    inputs: Sequence,
    elem_id: str,
    size: Literal["sm", "md", "lg"] = "sm",
) -> gr.Button:
    """Make a button whose file is produced when it is clicked. make(*inputs) returns (file name, content)."""
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
    """Write a file for download into a folder of its own."""
    path = passing_folder() / name.replace("/", "_")
    path.write_bytes(content)
    return str(path)


def passing_folder() -> Path:
    """Make a fresh folder with an unguessable name that lives for an hour; older ones are removed."""
    root = Path(tempfile.gettempdir()) / "dinodemo-downloads"
    root.mkdir(mode=0o700, exist_ok=True)
    for old in root.iterdir():
        if time.time() - old.stat().st_mtime > DOWNLOAD_AGE:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=root))


def problem_list(problems: list[tuple[str, str]], most: int = 30) -> str:
    """List files that were left out, and why."""
    if not problems:
        return ""
    lines = "\n".join(f"- {name}: {reason}" for name, reason in problems[:most])
    more = f"\n- and {len(problems) - most} more" if len(problems) > most else ""
    return f"\n\nLeft out:\n{lines}{more}"
