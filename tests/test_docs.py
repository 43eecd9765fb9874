"""The documentation holds: links and pictures resolve, every tab has its page, and pages name what the page has."""

import ast
import re
from pathlib import Path

import pytest

from dinodemo.backbones import BACKBONES
from dinodemo.tasks import TASKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE_FILES = [path for part in ("web", "tasks") for path in (ROOT / "dinodemo" / part).rglob("*")]  # with the labels
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "weights" / "README.md", ROOT / "assets" / "CREDITS.md"])
TABS = {task.title: task.docs for task in TASKS}  # the app's tab -> its page
LEAST_LABELS = 8  # controls that a tab's page names
MOST_BYTES = 150_000  # of a picture
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
BOLD = re.compile(r"\*\*(.+?)\*\*")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return a page without its code and formulas."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Return the links of a page that lead nowhere in this repository; those to other sites are not asked."""
    broken = []
    for link in LINK.findall(prose(path)):
        if re.match(r"https?://|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def labels_on_the_page() -> set[str]:
    """Return the texts of the page's source: strings of the Python files but docstrings, and the templates' texts."""
    texts = []
    for path in (path for path in PAGE_FILES if path.suffix == ".py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        texts += [
            n.value
            for n in ast.walk(tree)
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings
        ]
    for path in (path for path in PAGE_FILES if path.suffix == ".html"):
        texts += re.findall(r">([^<>]+)<", path.read_text(encoding="utf-8"))
    return {re.sub(r"^\d\. ", "", text.strip()) for text in texts}


def is_label(text: str, labels: set[str]) -> bool:
    """Tell whether a text is on the page, whole or as the beginning of what stands there (up to a bracket or colon)."""
    return any(label == text or re.match(re.escape(text) + r"( \(|:|$)", label) for label in labels)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_links_and_pictures_resolve(path):
    assert broken_links(path) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](#two) [c](gone.md) ![d](gone.png)\n```\n[e](code.md)\n```\n")
    assert broken_links(page) == ["#two", "gone.md", "gone.png"]


def test_every_tab_has_its_page_and_the_index_leads_there():
    linked = set(LINK.findall(prose(DOCS / "index.md")))
    assert set(TABS.values()) <= linked


@pytest.mark.parametrize("page", ["index.md", *TABS.values()])
def test_labels_in_bold_are_on_the_page(page):
    labels, bold = labels_on_the_page(), BOLD.findall(prose(DOCS / page))
    assert [text for text in bold if not is_label(text, labels)] == []
    assert len(set(bold)) >= (LEAST_LABELS if page in TABS.values() else 1)


def test_a_label_that_does_not_exist_is_seen():
    labels = labels_on_the_page()
    assert is_label("Layer", labels) and is_label("Photos to search", labels) and is_label("Eraser", labels)
    assert not is_label("Layers of cake", labels) and not is_label("Lay", labels)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=named)
def test_python_in_the_pages_can_be_read_and_imported(path):
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        tree = ast.parse(code)
        imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), str(path), "exec"), {})  # only the imports


def test_pictures_are_small_and_all_are_used():
    pictures = sorted((DOCS / "images").glob("*.png"))
    assert pictures
    assert [p.name for p in pictures if p.stat().st_size >= MOST_BYTES] == []
    used = {Path(link).name for page in PAGES for link in LINK.findall(prose(page))}
    assert {p.name for p in pictures} <= used


def test_licences_name_every_package_and_backbone():
    text = (DOCS / "licences.md").read_text(encoding="utf-8")
    lines = [line for file in ROOT.glob("requirements*.txt") for line in file.read_text().splitlines()]
    packages = {re.split(r"[<>=\[]", line)[0] for line in lines if line and not line.startswith(("#", "-r"))}
    assert [name for name in sorted(packages) if f"| {name} |" not in text] == []
    single = [name for name in BACKBONES if not name.startswith("dinov2-") or name.count("-") == 2]
    assert [name for name in single if "registers" not in name and f"`{name}`" not in text] == []


def test_the_korean_readme_has_the_parts_of_the_english_one():
    english, korean = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    assert "README.ko.md" in english and "README.md" in korean
    assert len(re.findall("[가-힣]", korean)) > 1000


def test_citation_names_the_papers():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert 'name: "The dinodemo authors"' in text
    assert all(f"arXiv:{number}" in text for number in ("2104.14294", "2304.07193", "2111.07832", "2508.10104"))
