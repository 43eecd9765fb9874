"""Gradio starts without its support for editors, and works as before."""

import subprocess
import sys
from pathlib import Path

import pytest

QUICK = """
import ast, dinodemo.web
parsed = []
usual, ast.get_source_segment = ast.get_source_segment, lambda *given: parsed.append(given) or usual(*given)
import gradio, gradio.component_meta
assert not parsed, f"{len(parsed)} sources of components were parsed"
assert gradio.component_meta.create_or_modify_pyi(None, "None", []) is None

class Own(gradio.Button):
    EVENTS = ["click"]

with gradio.Blocks() as page:
    Own().click(lambda: None)
assert len(page.fns) == 1
for component in (gradio.Button, gradio.Image):
    doc = component.click.__doc__ if hasattr(component, "click") else component.change.__doc__
    assert "{{" not in doc and component.__name__ in doc, doc
"""
LATE = """
import sys, gradio, gradio.component_meta, dinodemo.web
from dinodemo.web.gradio_import import skip_editor_support
before = list(sys.meta_path)
skip_editor_support()
assert sys.meta_path == before and "gradio_import" not in str(gradio.component_meta.create_or_modify_pyi.__module__)
"""


@pytest.mark.parametrize("code", [QUICK, LATE], ids=["before", "after"])
def test_stubs_are_skipped_where_gradio_comes_after(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
