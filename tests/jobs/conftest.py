"""Runs of the small script."""

import sys

import pytest

from dinodemo.jobs.runs import Limits, Runs

from .fake import FAKE


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    (path / "a.jpg").write_bytes(b"x" * 100)
    return path


@pytest.fixture
def make(tmp_path):
    """Return a function that makes what one app would: several see the same folder."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    made = []

    def make_runs(**limits) -> Runs:
        limits = {"free_disk": 0, "free_memory": 0, **limits}
        made.append(Runs(tmp_path / "runs", Limits(**limits), (sys.executable, str(script))))
        return made[-1]

    yield make_runs
    for runs in made:
        for child in runs._children.values():
            child.kill()
            child.wait()
