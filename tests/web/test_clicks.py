"""Clicks that a program made up: a sentence, whatever the event's data is, and the click of the page itself works."""

import inspect

import gradio as gr
import pytest
from test_bad_values import LEAKS
from test_isolation import picture
from visitor import Refused, Visitor

from dinodemo.engine.pool import EnginePool
from dinodemo.web.app import build_app
from dinodemo.web.clicks import Choice, Click, Spot
from dinodemo.web.errors import friendly
from dinodemo.web.services import Services
from dinodemo.web.settings import parse

NOWHERE = (None, [], {}, "x", 7, {"index": None}, {"index": "0"}, {"index": True}, {"index": -1}, {"index": {}})
NO_SPOTS = (*NOWHERE, *({"index": i} for i in (0, [1], [1, 2, 3], [1, None], [1, "2"], [-1, 5], [float("nan"), 5])))
NO_CHOICES = (*NOWHERE, {"index": 1.5}, {"index": [1, 2]}, {"index": float("inf")})


@friendly
def on_spot(event: Spot):
    return event.point


@friendly
def on_choice(event: Choice):
    yield event.of("abc")


@pytest.mark.parametrize("data", NO_SPOTS)
def test_what_is_no_point_is_refused(data):
    with pytest.raises(gr.Error, match="does not say what was clicked"):
        on_spot(Spot(None, data))


@pytest.mark.parametrize("data", NO_CHOICES)
def test_what_is_no_choice_is_refused(data):
    with pytest.raises(gr.Error, match="does not say what was clicked"):
        list(on_choice(Choice(None, data)))


def test_clicks_are_taken_and_those_on_what_is_gone_are_told():
    assert on_spot(Spot(None, {"index": [3, 4.5], "value": None})) == (3, 4.5)
    assert list(on_choice(Choice(None, {"index": 2}))) == ["c"]
    with pytest.raises(gr.Error, match="no longer there"):
        list(on_choice(Choice(None, {"index": 3})))


def test_every_handler_of_a_click_has_it_checked():
    page = build_app(Services(parse([]), EnginePool("cpu")))
    kinds = []
    for event in page.fns.values():
        hints = inspect.get_annotations(event.fn, eval_str=True) if event.collects_event_data else {}
        found = [kind for kind in hints.values() if inspect.isclass(kind) and issubclass(kind, gr.EventData)]
        assert bool(found) == bool(event.collects_event_data), event.fn
        assert all(issubclass(kind, Click) and hasattr(event.fn, "__wrapped__") for kind in found), event.fn
        kinds += found
    assert len(kinds) >= 12


def test_forged_clicks_are_answered_by_a_sentence_and_leave_no_traceback(server):
    visitor = Visitor(server.url)
    visitor.set("resolution", 224)
    for name in ("attention-photo", "compare-first", "compare-second"):
        visitor.set(name, visitor.upload("a.png", picture(5)))
        if name != "compare-first":
            visitor.fire(name, "upload")
    clicks = [event for event in visitor.events() if event["collects_event_data"]]
    assert len(clicks) >= 12
    begun = len(server.log.read_text())
    for event in clicks:
        for data in (
            None,
            "x",
            {"index": "/etc/passwd"},
            {"index": 10**9},
            {"index": [10**9, 3]},
            {"index": [9e5, 9e5]},
        ):
            told = outcome(visitor, event, data)
            assert told is None or (len(told) > 20 and not any(leak in told for leak in LEAKS)), (event, data, told)
            if data is None:
                assert "does not say what was clicked" in told
    assert "unexpected" not in server.log.read_text()[begun:]
    assert server.http.get("/healthz").json()["status"] == "ok"


def outcome(visitor: Visitor, event: dict, data) -> str | None:
    """Send one click; returns the message that came back, None if it was taken."""
    answer = visitor.join(event, event_data=data).raise_for_status()
    before = dict(visitor.values)
    try:
        visitor.receive(event, answer.json()["event_id"])
    except Refused as told:
        return str(told)
    finally:
        visitor.values = before
    return None
