"""What the API takes and gives: typed files, and checks that answer a wrong value with one sentence.

Gradio passes arguments on as they come, whatever the type hints say, so everything is checked here.
"""

import base64
import binascii
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from ..backbones import BACKBONES
from ..engine.features import Features
from ..engine.provenance import made_with
from ..io.images import Photo
from ..tasks.base import RESOLUTION
from .services import Services

log = logging.getLogger(__name__)

RESOLUTIONS = (int(RESOLUTION.low), int(RESOLUTION.high))  # pixels
MOST_LETTERS = 1000
MOST_FILES = 50  # photos of one call


class File(TypedDict):
    """Name a file as Gradio's clients send and receive it; `gradio_client.handle_file(path)` makes one."""

    path: str
    meta: dict


def as_file(named: tuple[str, bytes]) -> File:
    """Return (file name, content) as a file that the caller can fetch."""
    from .components import write_download

    return {"path": write_download(*named), "meta": {"_type": "gradio.FileData"}}


def read_path(value: File | str, what: str) -> Path:
    """Return where a file lies that was uploaded, or named by an http(s): or data: address.

    Args:
        value: That was sent.
        what: Its name in messages.

    Raises:
        ValueError: It is anything else, files of the server among it.
    """
    if isinstance(value, str) and value.startswith(("data:", "http://", "https://")):
        return _from_address(value, what)
    from gradio.utils import get_upload_folder, is_in_or_equal

    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or "\0" in path or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError(f"{what} must be an uploaded file; with gradio_client write handle_file(path)")
    if not Path(path).is_file():
        raise ValueError(f"{what} did not arrive; upload it again")
    return Path(path)


def read_photo(value: File | str, what: str) -> Photo:
    """Return an uploaded photo, shrunk as on the page.

    Args:
        value: That was sent.
        what: Its name in messages.

    Raises:
        ValueError: It is no uploaded file.
        gr.Error: It cannot be read; with the reason.
    """
    from .components import decode_upload

    path = read_path(value, what)
    return decode_upload(path, name_of(value, path))


def _from_address(address: str, what: str) -> Path:
    """Write what an address holds into a file; agents that call tools send lists of files so."""
    from gradio.processing_utils import ssrf_protected_download

    from .components import passing_folder

    folder = passing_folder()
    if address.startswith("data:"):
        try:
            content = base64.b64decode(address.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{what} is no base64 data: address; encode the file again") from error
        path = folder / "file"
        path.write_bytes(content)
        return path
    try:  # Gradio's own: it refuses addresses of this machine and its network
        return Path(ssrf_protected_download(address, str(folder)))
    except Exception as error:  # it raises bare ones
        log.info("cannot fetch %s: %r", _shown(address), error)
        raise ValueError(f"{what} cannot be fetched from {_shown(address)}; send the file itself") from error


def name_of(value: File | str, path: Path) -> str:
    """Return the name that a file had where it came from, without folders.

    Args:
        value: That was sent.
        path: Where the file lies here.
    """
    name = value.get("orig_name") if isinstance(value, dict) else None
    return Path(name).name or path.name if isinstance(name, str) else path.name


def read_files(value: Sequence[File] | None, what: str, most: int, least: int = 0) -> list[File]:
    """Return a list of files; None is an empty one.

    Args:
        value: That was sent.
        what: Its name in messages.
        most: Largest number of files.
        least: Smallest number of files.

    Raises:
        ValueError: It is no such list.
    """
    value = [] if value is None else value
    if not isinstance(value, list | tuple) or not least <= len(value) <= most:
        got = f"{len(value)} of them" if isinstance(value, list | tuple) else _shown(value)
        raise ValueError(f"{what} must be a list of {least} to {most} files, got {got}")
    return list(value)


def check_float(value: float, what: str, low: float, high: float) -> float:
    """Return a number from `low` to `high`; nan is none.

    Args:
        value: That was sent.
        what: Its name in messages.
        low: Least value.
        high: Greatest value.

    Raises:
        ValueError: It is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{what} must be a number from {low:g} to {high:g}, got {_shown(value)}")
    return float(value)


def check_int(value: int, what: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`; 3.0 is one.

    Args:
        value: That was sent.
        what: Its name in messages.
        low: Least value.
        high: Greatest value.

    Raises:
        ValueError: It is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value % 1:
        raise ValueError(f"{what} must be a whole number from {low} to {high}, got {_shown(value)}")
    return int(value)


def check_choice(value: str, what: str, choices: Sequence[str]) -> str:
    """Return a text that is one of the choices.

    Args:
        value: That was sent.
        what: Its name in messages.
        choices: Allowed texts.

    Raises:
        ValueError: It is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}; got {_shown(value)}")
    return value


def check_str(value: str, what: str) -> str:
    """Return a text of at most MOST_LETTERS characters.

    Args:
        value: That was sent.
        what: Its name in messages.

    Raises:
        ValueError: It is no such text.
    """
    if not isinstance(value, str) or len(value) > MOST_LETTERS:
        raise ValueError(f"{what} must be a text of at most {MOST_LETTERS} letters, got {_shown(value)}")
    return value


def check_strs(value: Sequence[str] | None, what: str) -> list[str]:
    """Return a list of texts; None is an empty one.

    Args:
        value: That was sent.
        what: Its name in messages.

    Raises:
        ValueError: It is no such list.
    """
    if value is not None and not isinstance(value, list | tuple):
        raise ValueError(f"{what} must be a list of texts, got {_shown(value)}")
    return [check_str(one, f"each of {what}") for one in value or ()]


def check_bool(value: bool, what: str) -> bool:
    """Return true or false.

    Args:
        value: That was sent.
        what: Its name in messages.

    Raises:
        ValueError: It is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, got {_shown(value)}")
    return value


def check_backbone(services: Services, backbone: str, resolution: int) -> tuple[str, int]:
    """Return which backbone is to run at which resolution, px.

    Args:
        services: Of the app.
        backbone: Name; an empty one is the server's own.
        resolution: px.

    Raises:
        ValueError: A name or number is not allowed.
    """
    # names only: the folders of the server are not for callers to choose
    name = services.start.name if backbone == "" else check_choice(backbone, "backbone", list(BACKBONES))
    return name, check_int(resolution, "resolution", *RESOLUTIONS)


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def about(f: Features) -> dict:
    """Return what every summary says of a picture's features."""
    return {
        "backbone": f.backbone,
        "identity": asdict(f.identity) if f.identity else None,
        "made_with": made_with(f),
        "size": list(f.image_size),
        "grid": list(f.grid),
    }


def reason_of(error: ValueError) -> str:
    """Return an error's sentence as the page would show it."""
    from .errors import as_message

    return as_message(error).message
