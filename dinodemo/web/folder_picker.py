"""Take a whole folder from the browser, with its sub-folders; Gradio's own file field loses their names."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from ..io.uploads import Uploaded
from ..io.zips import Limits
from .settings import Settings

MAX_FILES = 20_000
MAX_LETTERS = 1000  # of a folder's name
_FOLDER = Path(__file__).parent / "folder_picker"


def folder_picker(elem_id: str, suffixes: Sequence[str] = ()) -> gr.HTML:
    """Return a field for a folder, photos or a zip; its `submit` says that all is uploaded, `read_upload` reads it.

    Args:
        elem_id: Of the field.
        suffixes: Of files that are taken besides photos and zips, without the dot.
    """
    return gr.HTML(
        value=None,
        elem_id=elem_id,
        html_template=_read("html").replace(",.zip", "".join(f",.{suffix}" for suffix in ("zip", *suffixes))),
        css_template=_read("css"),
        js_on_load=_read("js").replace("|zip)", "".join(f"|{suffix}" for suffix in ("zip", *suffixes)) + ")"),
        label="Folder",
    )


def read_upload(value: dict | None) -> Uploaded:
    """Return the files that the browser uploaded; raises ValueError for anything that it cannot have uploaded."""
    files = value.get("files") or [] if isinstance(value, dict) else []
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise ValueError(f"at most {MAX_FILES} files can be uploaded at once; choose a smaller folder or a zip")
    return [_checked(entry) for entry in files]


def server_folder_box(settings: Settings, elem_id: str) -> gr.Textbox:
    """Return a field for a folder's name; it shows on servers that allow folders.

    Args:
        settings: Of the server.
        elem_id: Of the field.
    """
    return gr.Textbox(
        label="Or a folder on the server",
        visible=bool(settings.photos),
        max_lines=1,
        info=f"Inside {settings.photos}; press Enter.",
        elem_id=elem_id,
    )


def server_folder(settings: Settings, text: str) -> Path:
    """Return the folder that was named inside the one the server allows; raises ValueError for any other.

    Args:
        settings: Of the server.
        text: As the person wrote it.
    """
    if not settings.photos:
        raise ValueError("this server takes no folders by name; upload the photos")
    root, name = Path(settings.photos).expanduser().resolve(), text.strip()
    short = name[:80]
    try:
        if len(name) > MAX_LETTERS:
            raise ValueError("too long a name")
        folder = (root / name).resolve()
        found = folder.is_relative_to(root) and folder.exists()
    except (OSError, ValueError, RuntimeError):  # names that no file system takes, links in a circle
        found = False
    if not found:
        raise ValueError(f"there is no folder {short!r} in {settings.photos}; name one inside it")
    return folder


def _checked(entry) -> tuple[Path, PurePosixPath]:
    path, name = (entry.get("path"), entry.get("name")) if isinstance(entry, dict) else (None, None)
    if not isinstance(path, str) or not isinstance(name, str) or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError("the browser named a file that it did not upload; choose the folder again")
    source, parts = Path(path), PurePosixPath(name.replace("\\", "/").replace("\0", "")).parts
    if len(parts) > Limits().depth:
        raise ValueError(f"{name[:80]!r} lies in more than {Limits().depth} folders, one in another; move it up")
    kept = [part[:120] for part in parts if part not in ("/", "..", ".") and part.strip()]
    if not kept or source.is_symlink() or not source.is_file():
        raise ValueError(f"{name[:80]!r} did not arrive; choose the folder again")
    return source, PurePosixPath(*kept)


def _read(suffix: str) -> str:
    return (_FOLDER / f"picker.{suffix}").read_text(encoding="utf-8")
