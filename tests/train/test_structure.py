"""How the files of the training core depend on each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dinodemo.train

FOLDER = Path(dinodemo.train.__file__).parent


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(FOLDER).with_suffix("").parts)


FILES = {name_of(path): path for path in FOLDER.rglob("*.py")}


def siblings(name: str) -> set[str]:
    """Return the files of the package that a file imports, wherever the import is written."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = name.split(".")[: -node.level]
            found = [node.module] if node.module else [alias.name for alias in node.names]
            names |= {".".join([*base, module]) for module in found}
    return names & FILES.keys()


def test_no_file_imports_itself_through_others():
    order = list(TopologicalSorter({name: siblings(name) for name in FILES}).static_order())  # raises CycleError
    positions = [order.index(name) for name in ("distributed", "ssl", "state", "tail.state", "run")]
    assert positions == sorted(positions)


def test_no_file_is_long():
    long = [name for name, path in FILES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 350]
    assert not long
