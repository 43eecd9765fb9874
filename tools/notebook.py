"""Make the lecture's notebook from its script: `python -m tools.notebook`."""

from pathlib import Path

import jupytext

SCRIPT = Path(__file__).parents[1] / "lecture" / "companion.py"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook_text() -> str:
    """Return the notebook as JSON, without outputs; cell ids are their numbers, so that a change shows in a diff."""
    notebook = jupytext.reads(SCRIPT.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return jupytext.writes(notebook, fmt="ipynb")


if __name__ == "__main__":
    SCRIPT.with_suffix(".ipynb").write_text(notebook_text(), encoding="utf-8")
