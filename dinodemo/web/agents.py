"""Tools for agents (MCP): what Gradio's own server for them leaves open, closed.

Gradio answers an agent's call with its client for a person's own machine, which opens whatever file a call names: any
file of this server. So a call may name files that were uploaded here, or carry a file's content, and nothing else.
"""

import base64
import binascii
import functools
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder, is_in_or_equal

from .components import write_download

HOW = "upload it to /gradio_api/upload and give the path that comes back, or give its content as a data: address"


def guard_agents(auth: tuple[str, str] | None = None) -> None:
    """Let agents' calls name no files of this server; to be called before the app is launched.

    Args:
        auth: What the server asks visitors for. Whoever calls has logged in; Gradio's client has to do so, too.
    """
    from gradio import mcp

    convert = mcp.GradioMCPServer.convert_strings_to_filedata

    def guarded(self: mcp.GradioMCPServer, value: Any, filedata_positions: list) -> Any:
        return convert(self, with_own_files(value), filedata_positions)

    vars(mcp)["Client"] = functools.partial(mcp.Client, auth=auth)
    mcp.GradioMCPServer.convert_strings_to_filedata = guarded  # type: ignore[method-assign]


def with_own_files(value: Any) -> Any:
    """Return a call's arguments with the files that they carry written down.

    Raises ValueError for a file that was neither uploaded nor sent along.
    """
    if isinstance(value, list):
        return [with_own_files(one) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(path := value.get("path"), str):
        return {**value, "path": _own_file(path), "meta": {"_type": "gradio.FileData"}}
    return {key: with_own_files(one) for key, one in value.items()}


def _own_file(path: str) -> str:
    if path.startswith("data:"):
        try:
            return write_download("file", base64.b64decode(path.partition(",")[2], validate=True))
        except binascii.Error as error:
            raise ValueError("this is no base64 data: address; encode the file again") from error
    if "\0" in path or not is_in_or_equal(path, get_upload_folder()) or not Path(path).is_file():
        raise ValueError(f"this file was not uploaded here; {HOW}")
    return path
