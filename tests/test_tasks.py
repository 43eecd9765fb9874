"""The list of tasks: what walks it finds a new one without being told, and every task is complete."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from gradio import Image, Tab
from PIL import Image as Pillow

import dinodemo.tasks
from dinodemo import cli
from dinodemo.engine.pool import EnginePool
from dinodemo.tasks import TASKS, Option
from dinodemo.web.app import build_app
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy"


@pytest.fixture
def toy(monkeypatch):
    """Put a task into the package as a contributor would: a folder, and a line in the list."""
    monkeypatch.setattr(dinodemo.tasks, "__path__", [*dinodemo.tasks.__path__, str(TOY)])
    task = importlib.import_module("dinodemo.tasks.typical").TASK
    monkeypatch.setattr(dinodemo.tasks, "TASKS", (*TASKS, task))
    return task


@pytest.fixture
def services(tiny_folder):
    return Services(Settings(backbone=str(tiny_folder)), EnginePool("cpu", "float32"))


def test_a_new_task_is_on_the_page_and_in_the_api(toy, services):
    page = build_app(services)
    tabs = [block.label for block in page.blocks.values() if isinstance(block, Tab)]
    assert "Typical" in tabs
    assert any(isinstance(block, Image) and block.elem_id == "typical-picture" for block in page.blocks.values())
    assert {function.api_name for function in page.fns.values() if function.api_name} >= {"typical", "attention"}


def test_a_new_task_is_a_command(toy, tiny_folder, make_picture, tmp_path, capsys):
    Pillow.fromarray(make_picture(60, 90)).save(tmp_path / "one.png")
    command = ["typical", str(tmp_path / "one.png"), "--out", str(tmp_path / "out"), "--backbone", str(tiny_folder)]
    assert cli.main([*command, "--resolution", "70", "--device", "cpu", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["photos"]) == 1
    with Pillow.open(tmp_path / "out" / "one-typical.png") as picture:
        assert picture.size == (90, 60)


def test_the_map_of_the_example_is_a_cosine(toy, engine, make_picture):
    from dinodemo.tasks.typical import typical_map

    f = engine.features(make_picture(), resolution=70)
    flat = f.patches.reshape(-1, f.patches.shape[-1])
    rows = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    mean = rows.mean(axis=0)
    expected = [float(row @ mean / np.linalg.norm(mean)) for row in rows]
    np.testing.assert_allclose(typical_map(f).ravel(), expected, atol=1e-5)


def test_without_its_line_a_task_is_nowhere(services):
    labels = [block.label for block in build_app(services).blocks.values() if isinstance(block, Tab)]
    assert "Typical" not in labels


def test_the_example_is_no_more_work_than_promised():
    files = list((TOY / "typical").rglob("*.py"))
    others = 3  # the line in tasks/__init__.py, its page in docs/, its tests
    assert len(files) + others <= 9


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_has_what_it_says(task):
    assert (ROOT / "docs" / task.docs).is_file()
    assert callable(task.room("tab").build)
    for room, function in (("api", "functions"), ("cli", "add_commands")):
        module = task.room(room)
        assert (module is not None) == (room in task.rooms) and (module is None or callable(getattr(module, function)))
    assert task.room("kitchen") is None


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (Option("opacity", 0.6), [0, 0.5, 1], [-0.1, 1.1, "0.5", True, float("nan"), None]),
        (Option("count", 40, low=1, high=200), [1, 40, 200.0], [0, 201, 1.5, "3", True]),
        (Option("smooth", True), [True, False], [1, "true", None]),
        (Option("colour_map", "viridis", choices=("viridis", "jet")), ["jet"], ["Jet", 1, ["jet"], None]),
    ],
)
def test_an_option_checks_what_callers_send(option, good, bad):
    for value in good:
        assert option.check(value) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"{option.name} must be"):
            option.check(value)


def test_an_option_makes_the_argument_of_a_command(capsys):
    import argparse

    parser = argparse.ArgumentParser()
    for option in (
        Option("opacity", 0.6),
        Option("count", 40, low=1, high=200),
        Option("smooth", False),
        Option("colour_map", "jet", choices=("jet", "grey")),
    ):
        option.add_to(parser)
    found = parser.parse_args(["--opacity", "0.25", "--count", "3", "--smooth", "--colour-map", "grey"])
    assert (found.opacity, found.count, found.smooth, found.colour_map) == (0.25, 3, True, "grey")
    assert parser.parse_args([]).count == 40
    with pytest.raises(SystemExit):
        parser.parse_args(["--count", "201"])
    assert "from 1 to 200" in capsys.readouterr().err


def test_choices_are_shown_by_their_labels_and_taken_by_their_names():
    from dinodemo.web.components import option_control

    option = Option("model", "any", "Check", choices=("any", "affine"), labels=("Off", "Affine"))
    for component in (option_control(option), option_control(option, radio=True)):
        assert component.choices == [("Off", "any"), ("Affine", "affine")] and component.value == "any"
    with pytest.raises(ValueError):
        option_control(option.changed(labels=("Off",)))
