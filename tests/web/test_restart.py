"""A server that is told to end in the middle of a request."""

from test_isolation import picture
from visitor import Visitor

from dinodemo import Engine
from dinodemo.tasks.retrieval import ImageIndex


def give(visitor: Visitor, numbers: range) -> None:
    files = [{"path": visitor.upload(f"{i}.png", picture(i))["path"], "name": f"{i}.png"} for i in numbers]
    visitor.set("build-picker", {"files": files})


def test_a_server_ended_in_mid_request_loses_nothing_that_it_had_told(server, tiny_folder, tmp_path):
    page = Visitor(server.url)
    give(page, range(10))
    page.set("build-name", "last words")
    page.fire("build-add", "click")
    assert "10 added" in page.get("build-status")
    give(page, range(10, 30))
    page.join(page.event("build-add", "click")).raise_for_status()
    assert server.stop() == 0  # in good order, though it was at work

    (path,) = (server.folder / "tmp" / "dinodemo-indexes").glob("*/last words")
    index = ImageIndex(path, Engine(str(tiny_folder), device="cpu"))
    kept = len(index)
    assert 10 <= kept <= 30
    (tmp_path / "0.png").write_bytes(picture(0))
    assert index.search(tmp_path / "0.png", k=1)[0].score > 0.9
    report = index.add([(f"{i}.png", picture(i)) for i in range(30)])
    assert (report.added, report.skipped) == (30 - kept, kept)
