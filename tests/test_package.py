"""The package installs: the wheel carries what the app needs, runs away from the checkout, declares what it imports."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib import import_module, metadata
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dinodemo

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_COPIED = shutil.ignore_patterns(
    ".*cache",
    ".git",
    ".venv",
    "__pycache__",
    "*.egg-info",
    "*.pyi",
    "build",
    "dist",
    "indexes",
    "runs",
    "screenshots",
    "site",
)
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn"}  # where the names differ
FACTS = """
import json, sys
import dinodemo
heavy = sorted({"torch", "gradio", "cv2", "transformers"} & set(sys.modules))
from dinodemo.backbones import weights_root
from dinodemo.backbones.offline import PROJECT_WEIGHTS, manifest
from dinodemo.tasks.depth import DepthProbe, probe_store
from dinodemo.web import app, components, settings
ready = probe_store.ProbeStore(None).ready("dinov2-small-offline")
print(json.dumps({
    "file": dinodemo.__file__,
    "heavy": heavy,
    "photos": components.example_photos(),
    "segmentation": len(list((components.ASSETS / "segmentation").iterdir())),
    "sources": sorted(manifest()["sources"]),
    "patch": (PROJECT_WEIGHTS / manifest()["sources"]["patch"]["file"]).is_file(),
    "ready": [label for label, _ in ready],
    "unit": [probe_store.ProbeStore(None).load(key).unit_ for _, key in ready],
    "css": len(app.own_text("style.css")),
    "written_to": [str(weights_root()), str(settings.parse(["--backbone", "b"]).runs_folder())],
}))
"""
pytestmark = pytest.mark.xdist_group("package")


@dataclass(frozen=True)
class Built:
    """Hold a source distribution's and a wheel's file names, and the folder where the wheel is installed."""

    source: set[str]
    wheel: set[str]
    folder: Path
    elsewhere: Path

    def run(self, *arguments: str) -> str:
        """Run Python somewhere else, with the installed wheel before everything."""
        home = {name: str(self.elsewhere / name) for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            env={**os.environ, **home, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


def not_copied(folder: str, names: list[str]) -> set[str]:
    """Name what a copy for building leaves out: the environment, caches, and the weights that were built or fetched."""
    built = {name for name in names if Path(folder, name).is_dir()} if Path(folder) == ROOT / "weights" else set()
    return {*NOT_COPIED(folder, names), *built}


def pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index", "--quiet"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """Make the source distribution from a copy, the wheel from that, and install the wheel into a folder."""
    copy, dist, folder, elsewhere = (tmp_path_factory.mktemp(name) for name in ("copy", "dist", "folder", "elsewhere"))
    shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=not_copied)
    made = copy / "weights" / "dinov2-small-offline"  # what `weights fetch` leaves in a checkout
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"big")
    make = f"from setuptools.build_meta import build_sdist; build_sdist({str(dist)!r})"
    done = subprocess.run([sys.executable, "-c", make], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (source,) = dist.glob("*.tar.gz")
    pip("wheel", "--no-build-isolation", "--wheel-dir", dist, source)
    (wheel,) = dist.glob("*.whl")
    pip("install", "--target", folder, wheel)
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    return Built(names, set(zipfile.ZipFile(wheel).namelist()), folder, elsewhere)


def test_the_wheel_carries_code_photos_and_weights_and_nothing_else(built):
    wanted = {
        f"dinodemo/assets/{path.relative_to(ROOT / 'assets')}"
        for path in (ROOT / "assets").rglob("*")
        if path.is_file()
    }
    wanted |= {f"dinodemo/weights/{path.name}" for path in (ROOT / "weights").glob("[!.]*.*") if path.is_file()}
    wanted |= {
        str(path.relative_to(ROOT))
        for path in (ROOT / "dinodemo").rglob("*")
        if path.suffix in (".py", ".css", ".html", ".js", ".json", ".typed")
    }
    carried = {name for name in built.wheel if ".dist-info/" not in name}
    assert sorted(wanted - carried) == [] and sorted(carried - wanted) == []
    named = {
        entry["file"]
        for entry in json.loads((ROOT / "weights" / "manifest.json").read_text())["sources"].values()
        if "file" in entry
    }
    assert named and {f"dinodemo/weights/{file}" for file in named} <= carried


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what belongs to the sources is told by git")
def test_the_source_distribution_is_whole(built):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in listed.splitlines() if (ROOT / name).exists() and name not in built.source] == []
    assert not any("dinov2-small-offline/" in name for name in built.source)


def test_the_installed_package_finds_what_it_carries(built):
    before = built.files()
    told = json.loads(built.run("-c", FACTS))
    assert Path(told["file"]) == built.folder / "dinodemo" / "__init__.py" and told["heavy"] == []
    assert len(told["photos"]) >= 9 and all(Path(p).is_relative_to(built.folder) for p in told["photos"])
    assert told["segmentation"] == 5 and told["css"] > 100
    assert told["sources"] == ["depth_rooms", "onnx", "patch", "wheel"] and told["patch"]
    assert len(told["ready"]) == 1 and told["unit"] == ["metres"]
    assert all(Path(path).is_relative_to(built.elsewhere) for path in told["written_to"])
    assert built.files() - before == set()


def test_the_installed_command_lists_backbones(built):
    where = built.run("-c", "import dinodemo.cli; print(dinodemo.cli.__file__)").strip()
    assert Path(where) == built.folder / "dinodemo" / "cli.py"
    lines = built.run("-m", "dinodemo.cli", "weights", "list").splitlines()
    assert lines[0].startswith("name") and any(line.startswith("dinov2-small-offline") for line in lines)
    scripts = metadata.PathDistribution(next(built.folder.glob("dinodemo-*.dist-info"))).entry_points
    assert [(point.name, point.value) for point in scripts] == [("dinodemo", "dinodemo.cli:main")]


def test_one_version_everywhere(built):
    assert f"dinodemo-{dinodemo.__version__}.dist-info/METADATA" in built.wheel
    assert f"\nversion: {dinodemo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_public_names_are_there_when_they_are_asked_for():
    assert all(getattr(dinodemo, name) is not None for name in dinodemo.__all__)
    assert set(dinodemo.__all__) <= set(dir(dinodemo))
    tree = ast.parse(Path(dinodemo.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert {*typed, "__version__"} == set(dinodemo.__all__)  # what a type checker sees
    assert all(getattr(import_module(f"dinodemo.{m}"), n) is getattr(dinodemo, n) for n, m in typed.items())
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        _ = dinodemo.Engin


def test_importing_the_top_is_quick():
    code = "import sys, dinodemo; dir(dinodemo); print({'torch', 'gradio', 'cv2', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def top_name(text: str) -> str:
    name = text.partition(".")[0]
    return DISTRIBUTIONS.get(name, name.replace("_", "-"))


def asked_by(node: ast.AST) -> list[str]:
    """Return the modules that one node of a syntax tree imports, looks for, or starts with `python -m`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
        return [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    if isinstance(node, ast.List | ast.Tuple):
        words = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
        return [str(after) for word, after in pairwise(words) if word == "-m" and after]
    return []


def imported(nodes) -> set[str]:
    """Return the distributions that nodes of a syntax tree ask for."""
    names = {name.partition(".")[0] for node in nodes for name in asked_by(node)}
    return {top_name(name) for name in names - {"dinodemo"} - sys.stdlib_module_names}


def brought(requirement: Requirement) -> set[str]:
    """Return a requirement's name, and what its extras bring where it is installed."""
    found = {requirement.name}
    if requirement.extras and requirement.name in {name.lower() for name in metadata.packages_distributions()}:
        lines = [Requirement(line) for line in metadata.requires(requirement.name) or []]
        asked = [{"extra": extra} for extra in requirement.extras]
        found |= {r.name for r in lines if r.marker and any(map(r.marker.evaluate, asked))}
    return found


def test_what_is_imported_is_declared_and_nothing_else():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "dinodemo").rglob("*.py")]
    everywhere = imported(node for tree in trees for node in ast.walk(tree))
    at_import = imported(node for tree in trees for node in tree.body)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    needed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    extra = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
    always = {requirement.name for requirement in needed}
    assert sorted(everywhere - always - {name for r in extra for name in brought(r)}) == [], "imported, not declared"
    assert sorted(always - everywhere) == [], "declared, not imported"
    assert [str(r) for r in extra if not brought(r) & everywhere] == [], "an extra that nothing imports"
    assert sorted(at_import - always) == [], "an extra's package, imported where a plain install has none"
    assert all(re.search("[<>=]", str(requirement.specifier)) for requirement in needed)


def test_what_asks_for_a_package_is_seen():
    code = "import os, cv2\nfrom . import a\nfrom PIL import Image\nfind_spec('mcp')\nrun([python, '-m', 'pip', 'x'])"
    assert imported(ast.walk(ast.parse(code))) == {"opencv-python", "pillow", "mcp", "pip"}
