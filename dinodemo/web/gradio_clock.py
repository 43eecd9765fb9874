"""Gradio's own sweeps of uploads and of pages' states, which heed that a clock may be set (see `io.clock`)."""

import contextlib
import math
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from gradio import route_utils, state_holder

from ..io import clock


def steady_gradio() -> None:
    """Make Gradio's sweeps remove what is old by `io.clock`, and nothing because the clock was set."""
    vars(state_holder)["datetime"] = SimpleNamespace(datetime=_Steady)
    vars(route_utils)["delete_files_created_by_app"] = delete_files


class _Steady:
    """Stands where Gradio takes the difference of two moments, and asks for nothing else."""

    @staticmethod
    def now() -> timedelta:
        """Return the time since some moment, by the clock that nobody sets."""
        return timedelta(seconds=clock.steady())


def delete_files(blocks: gr.Blocks, age: int | None) -> None:
    """Delete uploads and results, as Gradio's own function does.

    Args:
        blocks: The page.
        age: Seconds; older ones go. None for all of them.
    """
    kept = {file for component in blocks.blocks.values() for file in getattr(component, "keep_in_cache", ())}
    for files in blocks.temp_file_sets:
        for file in list(files - kept):
            with contextlib.suppress(FileNotFoundError):
                if clock.age(Path(file).lstat().st_ctime) > (-math.inf if age is None else age):
                    Path(file).unlink()
                    files.discard(file)
