"""What the site needs besides MkDocs: pages are written for the repository, where links and formulas differ a little.

A link out of `docs/` leads to a copy of that file under `repository/`; formulas become MathML, which browsers draw
without a script.
"""

import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
CODE = re.compile(r"^```.*?^```|(?<!\$)`[^`\n]+`(?!\$)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```math\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"\$`([^`]+)`\$")
PREFIX = "repository/"
PAGES, MOST_FILES = (".md",), 200


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to, and those that these link to."""
    root = Path(config.docs_dir).parent
    waiting = [file.src_uri for file in files.documentation_pages()]
    while waiting and len(files) < MOST_FILES:
        page = waiting.pop()
        text = CODE.sub("", _source(root, page).read_text(encoding="utf-8"))
        for link in LINK.findall(text):
            uri = _site_uri(page, link)
            if uri.startswith(PREFIX) and files.get_file_from_path(uri) is None and _source(root, uri).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(_source(root, uri))))
                waiting += [uri] if uri.endswith(PAGES) else []
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links and formulas of a page into those of the site."""
    here = page.file.src_uri

    def link(found: re.Match) -> str:
        target = _site_uri(here, found[1])
        if files.get_file_from_path(target) is None and _source(Path(config.docs_dir).parent, target).is_dir():
            return found[1]
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    parts, last = [], 0
    markdown = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)  # a Space's header
    markdown = BLOCK.sub(lambda found: f"\n<div>{_formula(found[1], 'block')}</div>\n", markdown)
    markdown = INLINE.sub(lambda found: _formula(found[1], "inline"), markdown)
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(link, markdown[last : code.start()]), code[0]]
        last = code.end()
    return "".join([*parts, LINK.sub(link, markdown[last:])])


def _formula(latex: str, display: str) -> str:
    return convert(" ".join(latex.split()), display=display).replace("\n", " ")


def _repository_path(uri: str) -> str:
    return uri.removeprefix(PREFIX) if uri.startswith(PREFIX) else f"docs/{uri}"


def _source(root: Path, uri: str) -> Path:
    return root / _repository_path(uri)


def _site_uri(page: str, link: str) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(_repository_path(page)), link))
    return path.removeprefix("docs/") if path.startswith("docs/") else PREFIX + path
