"""A server that is told to end in the middle of a request, and the one that takes its place."""

import pytest
from test_isolation import picture
from visitor import Refused, Visitor


def give(visitor: Visitor, numbers: range) -> None:
    files = [{"path": visitor.upload(f"{i}.png", picture(i))["path"], "name": f"{i}.png"} for i in numbers]
    visitor.set("build-picker", {"files": files})


def test_a_server_ended_in_mid_request_loses_nothing_that_it_had_told(start_server):
    first = start_server()
    page = Visitor(first.url)
    give(page, range(10))
    page.set("build-name", "holiday")
    page.fire("build-add", "click")
    assert "10 added" in page.get("build-status")
    give(page, range(10, 60))
    page.join(page.event("build-add", "click")).raise_for_status()
    assert first.stop() == 0  # in good order, though it was at work

    second = start_server(folder=first.folder)
    again = Visitor(second.url)
    again.set("browser-key", page.key)
    again.load()
    again.set("index", "mine:holiday")
    again.fire("index", "change")
    kept = int(again.get("index-about").split()[0].strip("*"))
    assert 10 <= kept <= 60
    give(again, range(60))
    again.fire("build-add", "click")
    assert f"{60 - kept} added" in again.get("build-status")

    page.http = again.http  # a page that was open all the time: what it showed went with the first server
    with pytest.raises(Refused, match="no photo yet"):
        page.fire("point-ask", "click")
