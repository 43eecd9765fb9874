"""Which way imports point: app -> web -> tasks -> {engine, backbones, io}; train -> {backbones, io}; jobs -> io."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOOR = {"io", "backbones", "engine"}
# part of the package -> the parts it may import besides itself
MAY_IMPORT = {
    "io": set(),
    "backbones": {"io"},
    "engine": {"backbones", "io"},
    "curation": {"io", "engine"},
    "train": {"backbones", "io", "engine.devices"},
    "jobs": {"io"},
    "tasks": FLOOR | {"curation", "scale.addresses"},  # its rooms reach further, see ROOMS
    "web": FLOOR | {"tasks", "jobs"},
    "scale": FLOOR | {"tasks.retrieval"},
    "commands": FLOOR | {"tasks.base", "tasks.retrieval"},
    "cli": FLOOR | {"tasks", "web.settings", "web.app", "commands"},
    "__init__": FLOOR | {"tasks", "train"},
}
ROOMS = {  # the last part of a task's file name -> what it may import besides
    "tab": {"web", "jobs", "train.config", "train.planning"},  # none of which brings torch
    "api": {"web.api_values", "web.owner"},
    "cli": {"commands", "train", "scale", "web.settings"},
}
OF_ALL_TASKS = {"tasks", "tasks.base", "tasks.estimator", "tasks.tokens", "tasks.probe"}  # what tasks share
TOGETHER = {  # tasks that show another's results inside of their own; no others import each other
    "segmentation": {"segmentation_head"},
    "segmentation_head": {"segmentation"},
    "retrieval": {"compare"},
    "classify": {"retrieval"},
    "finetune": {"attention", "pca"},
}


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def run_time_nodes(node: ast.AST):
    """Walk a syntax tree, inside functions too, but not into `if TYPE_CHECKING:`."""
    yield node
    children = node.orelse if for_types_only(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from run_time_nodes(child)


def imports(path: Path, root: Path = ROOT) -> set[str]:
    """Return the absolute dotted names that a file imports, `from x import y` as x.y."""
    package = module_name(path, root).split(".")[: None if path.name == "__init__.py" else -1]
    found = set()
    for node in run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{prefix}.{alias.name}" for alias in node.names}
    return found


def package_files(root: Path) -> list[Path]:
    return sorted((root / "dinodemo").rglob("*.py"))


def under(name: str, allowed: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{one}.") for one in allowed)


def inside(names: set[str]) -> set[str]:
    """Return the names of this package without its own name; `Engine` and the like come from its top."""
    return {name.partition(".")[2] or "__init__" for name in names if name.split(".")[0] == "dinodemo"}


def wrong_arrows(root: Path) -> list[str]:
    """List the imports that point the wrong way."""
    found = []
    for path in package_files(root):
        name = module_name(path, root).partition(".")[2] or "__init__"
        part, room = name.split(".")[0], name.rpartition("_")[2].rpartition(".")[2]
        allowed = MAY_IMPORT[part] | {part}
        if part == "tasks":
            task = name.split(".")[1] if name.count(".") else ""
            own = {f"tasks.{one}" for one in {task, *TOGETHER.get(task, ())} if one}
            allowed = MAY_IMPORT["tasks"] | own | ROOMS.get(room, set())
            if name in ("tasks", "tasks.matching"):
                allowed = {"tasks"}
        for target in inside(imports(path, root)):
            shared = part == "tasks" and (target in OF_ALL_TASKS or under(target, OF_ALL_TASKS - {"tasks"}))
            top = target in ("Engine", "Features", "__version__")
            if not (under(target, allowed) or shared or (top and part not in ("io", "backbones", "jobs"))):
                found.append(f"{name} -> {target}")
    return found


def gradio_users(root: Path) -> list[str]:
    """List the files that import Gradio and are neither a tab nor in the web folder."""
    return [
        module_name(path, root)
        for path in package_files(root)
        if path.relative_to(root).parts[1] != "web"
        and not path.stem.endswith("tab")
        and any(name.split(".")[0] in ("gradio", "gradio_client") for name in imports(path, root))
    ]


def cycles(root: Path) -> list[list[str]]:
    """List the circles of modules that import each other, inside of functions too."""
    names = {module_name(path, root) for path in package_files(root)}
    graph = {}
    for path in package_files(root):
        targets = {name if name in names else name.rpartition(".")[0] for name in imports(path, root)}
        graph[module_name(path, root)] = (targets & names) - {module_name(path, root)}
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:  # Warshall's transitive closure
        for start in graph:
            if middle in reach[start]:
                reach[start] |= reach[middle]
    rings = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]}
    return sorted(sorted(ring) for ring in rings)


def test_imports_point_downwards():
    assert wrong_arrows(ROOT) == []


def test_only_tabs_and_the_web_folder_know_gradio():
    assert gradio_users(ROOT) == []


def test_no_modules_import_each_other():
    assert cycles(ROOT) == []


def too_long(root: Path, lines: int = 350, of_function: int = 60) -> list[str]:
    """List files of more than `lines` lines, and functions whose body is longer than `of_function` lines."""
    found = []
    for path in [*package_files(root), *(root / "tests").rglob("*.py")]:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        if text.count("\n") > lines:
            found.append(f"{name} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0].end_lineno if ast.get_docstring(node) is not None else node.lineno
                size = (node.end_lineno or 0) - (first or 0)
                if size > of_function:
                    found.append(f"{name}: {node.name} has {size} lines")
    return found


def test_files_and_functions_stay_short():
    assert too_long(ROOT) == []


def test_a_long_file_and_a_long_function_are_seen(copied):
    root = copied("io/files.py", "pass" + "\n    pass" * 350)
    assert [found.split(" has ")[0] for found in too_long(root)] == [
        "dinodemo/io/files.py",
        "dinodemo/io/files.py: late",
    ]


@pytest.fixture
def copied(tmp_path):
    """Copy the package's Python files, to put a forbidden import into one of them."""
    for path in package_files(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")

    def add(file: str, statement: str) -> Path:
        path = tmp_path / "dinodemo" / file
        path.write_text(path.read_text(encoding="utf-8") + f"\n\ndef late():\n    {statement}\n", encoding="utf-8")
        return tmp_path

    return add


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("io/images.py", "from ..engine import features"),
        ("io/files.py", "from .. import backbones"),
        ("backbones/registry.py", "from ..engine import devices"),
        ("engine/engine.py", "from ..tasks import attention"),
        ("engine/cache.py", "from ..web import services"),
        ("train/losses.py", "from ..tasks import tokens"),
        ("train/config.py", "from ..web import app"),
        ("train/ssl.py", "from ..engine import engine"),
        ("jobs/runs.py", "from ..train import config"),
        ("curation/select.py", "from ..tasks import pca"),
        ("tasks/attention/maps.py", "from ...web import services"),
        ("tasks/attention/draw.py", "from ...web.services import Services"),
        ("tasks/attention/api.py", "from ...web import header"),
        ("tasks/depth/probe.py", "from ..pca import PatchPCA"),
        ("tasks/depth/tab.py", "from ..segmentation import draw"),
        ("tasks/depth/deep.py", "from ...train import losses"),
        ("tasks/retrieval/index.py", "from ...jobs import runs"),
        ("tasks/compare/matches.py", "from ..retrieval import index"),
        ("tasks/tokens.py", "from .attention import maps"),
        ("web/header.py", "from ..train import losses"),
        ("web/app.py", "from ..scale import cluster"),
        ("scale/cluster.py", "from ..web import app"),
        ("commands.py", "from .web import app"),
        ("cli.py", "from .train import loop"),
        ("tasks/__init__.py", "from ..web import app"),
        ("tasks/matching.py", "from ..engine import engine"),
        ("tasks/depth/cli.py", "from ...web import header"),
        ("io/images.py", "from .. import Engine"),
    ],
)
def test_a_forbidden_import_is_seen_wherever_it_is(file, statement, copied, tmp_path):
    (tmp_path / "dinodemo" / "tasks" / "depth" / "deep.py").write_text("")
    assert len(wrong_arrows(copied(file, statement))) == 1


@pytest.mark.parametrize(
    "file",
    [
        "tasks/attention/draw.py",
        "tasks/pca/api.py",
        "tasks/depth/cli.py",
        "io/images.py",
        "commands.py",
        "curation/select.py",
        "jobs/runs.py",
    ],
)
def test_gradio_in_the_wrong_place_is_seen(file, copied):
    assert len(gradio_users(copied(file, "import gradio as gr"))) == 1


def test_a_circle_is_seen(copied):
    root = copied("backbones/registry.py", "from .find import resolve")
    assert any("dinodemo.backbones.registry" in ring for ring in cycles(root))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from .. import devices", {"dinodemo.devices"}),
        ("from . import other", {"dinodemo.tasks.other"}),
        ("from ..web.app import launch", {"dinodemo.web.app.launch"}),
        ("import torch.nn as nn", {"torch.nn"}),
        ("def f():\n    from dinodemo import Engine", {"dinodemo.Engine"}),
        ("if TYPE_CHECKING:\n    from ..engine import Engine\nelse:\n    import json", {"json"}),
    ],
)
def test_the_reader_of_imports_sees_every_spelling(statement, expected, tmp_path):
    path = tmp_path / "dinodemo" / "tasks" / "one.py"
    path.parent.mkdir(parents=True)
    path.write_text(statement)
    assert imports(path, tmp_path) == expected


@pytest.mark.parametrize(
    "path", [*package_files(ROOT), *ROOT.glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")], ids=lambda p: p.stem
)
def test_packages_that_machines_may_lack_are_not_needed(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("torchvision", "timm", "xformers")}


def test_requirements_do_not_ask_for_them_either():
    asked = "\n".join(p.read_text() for p in ROOT.glob("requirements*.txt")).lower()
    lines = [line for line in asked.splitlines() if not line.startswith("#")]
    assert not [line for line in lines if line.startswith(("torchvision", "timm", "xformers"))]


def test_app_only_starts_the_page():
    assert inside(imports(ROOT / "app.py")) <= {"web.settings", "web.app.launch"}


def loaded(modules: str) -> list[str]:
    """Import modules in a fresh process; returns which of the heavy packages that brought."""
    check = f"import sys, {modules}; print(*[m for m in ('torch', 'transformers', 'gradio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_loads_neither_torch_nor_gradio():
    names = ("io.images", "engine", "engine.features", "backbones", "backbones.offline", "engine.cache", "tasks")
    assert loaded(", ".join(["dinodemo", *(f"dinodemo.{name}" for name in names)])) == []


OPENED = """
import importlib, pkgutil, sys, cv2, gradio, transformers, torch
ours, found = tuple(sys.argv[1:]), set()

def look(event, args):
    if event == "open" and str(args[0]).startswith(ours) and not str(args[0]).endswith((".py", ".pyc")):
        found.add(str(args[0]))

sys.addaudithook(look)
import dinodemo
for module in pkgutil.walk_packages(dinodemo.__path__, "dinodemo."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted(found), torch.cuda.is_initialized())
"""


def test_importing_any_module_opens_no_file_and_picks_no_device():
    check = [sys.executable, "-c", OPENED, *(str(ROOT / folder) for folder in ("dinodemo", "assets", "weights"))]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"], done.stdout


def test_commands_and_what_tabs_draw_need_no_gradio():
    rooms = [path for path in (ROOT / "dinodemo" / "tasks").rglob("*.py") if path.stem in ("draw", "cli", "api")]
    assert "gradio" not in loaded(", ".join(module_name(path) for path in rooms))


def test_the_engine_is_offered_by_the_package_all_the_same():
    import dinodemo
    from dinodemo.engine.engine import Engine

    assert dinodemo.Engine is Engine
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        dinodemo.Motor  # noqa: B018
