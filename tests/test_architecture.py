"""Which way imports point: app -> ui -> {tasks, render, jobs, engine} -> {backbones, features, images}."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "dinodemo").rglob("*.py"))
FOUNDATION = {"backbones", "features", "images", "tokens", "video"}
MACHINERY = {"cache", "devices", "journal", "scheduler", "vit"}  # what the engine is made of
MIDDLE = {"tasks", "render", "jobs", "run_settings", "engine", "pool", "curation"}
COMMANDS = {path.stem for path in (ROOT / "dinodemo").glob("cli*.py")}
TOP = {"ui", "settings"} | COMMANDS

# part of the package -> the parts it may import; a part that is not named here may import anything but what is above it
MAY_IMPORT = {
    "features": set(),
    "images": set(),
    "tokens": set(),
    "video": {"images"},
    "backbones": {"images", "vit"},  # what is imported is run once before it is kept
    "engine": FOUNDATION | MACHINERY,
    "pool": FOUNDATION | MACHINERY | {"engine"},
    "tasks": FOUNDATION | {"devices"},
    "render": FOUNDATION,
    "jobs": FOUNDATION | {"processes"},
    "run_settings": FOUNDATION | {"train"},
    "curation": FOUNDATION | {"devices"},
    "cluster": FOUNDATION | {"engine", "tasks"},
    "train": FOUNDATION | {"devices", "vit"},
    **dict.fromkeys(MACHINERY, FOUNDATION | MACHINERY),
    "settings": FOUNDATION,
    "ui": FOUNDATION | MACHINERY | MIDDLE | {"settings"},
    **dict.fromkeys(COMMANDS, FOUNDATION | MACHINERY | MIDDLE | TOP | {"train", "cluster"}),
}


def module_name(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def run_time_nodes(node: ast.AST):
    """Walk a syntax tree, inside functions too, but not into `if TYPE_CHECKING:`."""
    yield node
    children = node.orelse if for_types_only(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from run_time_nodes(child)


def imports(path: Path) -> set[str]:
    """Return the absolute dotted names that a file imports, `from x import y` as x.y."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path)[:-1]
    found = set()
    for node in run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{prefix}.{alias.name}" for alias in node.names}
    return found


def part_of(name: str) -> str | None:
    """Return the part of the package that a dotted name lies in, None for other packages."""
    parts = name.split(".")
    if parts[0] != "dinodemo" or len(parts) == 1 or parts[1] == "__version__":
        return None
    return {"Engine": "engine", "Features": "features"}.get(parts[1], parts[1])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_point_downwards(path):
    part = part_of(".".join(module_name(path)))
    if part is None:
        return  # dinodemo/__init__.py gathers the public names
    allowed = MAY_IMPORT.get(part, FOUNDATION | MACHINERY | MIDDLE) | {part}
    wrong = {name for name in imports(path) if part_of(name) and part_of(name) not in allowed}
    assert not wrong, f"{named(path)} imports {sorted(wrong)}; {part} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "tasks"], ids=named)
def test_tasks_do_not_import_each_other(path):
    own = ".".join(module_name(path))
    others = {name for name in imports(path) if part_of(name) == "tasks" and not f"{name}.".startswith(f"{own}.")}
    assert not others


@pytest.mark.parametrize("path", [p for p in FILES if part_of(".".join(module_name(p))) != "ui"], ids=named)
def test_only_the_ui_knows_gradio(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("gradio", "gradio_client")}


@pytest.mark.parametrize("path", [*FILES, *ROOT.glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")], ids=named)
def test_packages_that_machines_may_lack_are_not_needed(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("torchvision", "timm", "xformers")}


def test_requirements_do_not_ask_for_them_either():
    asked = "\n".join(p.read_text() for p in ROOT.glob("requirements*.txt")).lower()
    lines = [line for line in asked.splitlines() if not line.startswith("#")]
    assert not [line for line in lines if line.startswith(("torchvision", "timm", "xformers"))]


def test_app_only_starts_the_ui():
    parts = {part_of(name) for name in imports(ROOT / "app.py")} - {None}
    assert parts <= {"ui", "settings"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from .. import devices", {"dinodemo.devices"}),
        ("from . import other", {"dinodemo.tasks.other"}),
        ("from ..ui.app import launch", {"dinodemo.ui.app.launch"}),
        ("import torch.nn as nn", {"torch.nn"}),
        ("def f():\n    from dinodemo import Engine", {"dinodemo.Engine"}),
        ("if TYPE_CHECKING:\n    from ..engine import Engine\nelse:\n    import json", {"json"}),
    ],
)
def test_the_reader_of_imports_sees_every_spelling(statement, expected, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "dinodemo" / "tasks" / "one.py"
    path.parent.mkdir(parents=True)
    path.write_text(statement)
    assert imports(path) == expected


def test_importing_the_package_loads_neither_torch_nor_gradio():
    names = ("images", "features", "backbones", "backbones.offline", "cache")
    modules = ", ".join(["dinodemo", *(f"dinodemo.{name}" for name in names)])
    check = f"import sys, {modules}; print([m for m in ('torch', 'transformers', 'gradio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_engine_is_offered_by_the_package_all_the_same():
    import dinodemo
    from dinodemo.engine.engine import Engine

    assert dinodemo.Engine is Engine
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        dinodemo.Motor  # noqa: B018


def test_commands_and_what_tabs_draw_need_no_gradio():
    views = [path.stem for path in (ROOT / "dinodemo" / "ui").glob("*_view.py")]
    modules = ", ".join([f"dinodemo.{name}" for name in COMMANDS] + [f"dinodemo.ui.{name}" for name in views])
    check = f"import sys, {modules}; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
