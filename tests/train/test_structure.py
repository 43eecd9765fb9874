"""How the files of the training core depend on each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dinodemo.train

FOLDER = Path(dinodemo.train.__file__).parent


def siblings(path: Path) -> set[str]:
    """Return the files of the folder that a file imports, wherever the import is written."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return names


def test_no_file_imports_itself_through_others():
    graph = {path.stem: siblings(path) for path in FOLDER.glob("*.py")}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("distributed") < order.index("ssl") < order.index("state") < order.index("loop")


def test_no_file_is_long():
    assert not [path.name for path in FOLDER.glob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 350]
