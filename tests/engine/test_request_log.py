"""The log of requests: one line each, and nothing of what a person sent."""

import json
import logging
import sys

import pytest

from dinodemo.backbones import OFFLINE_DEFAULT
from dinodemo.engine import request_log


def lines(caplog) -> list[dict]:
    return [record.facts for record in caplog.records if record.name == "dinodemo.requests"]


def test_a_request_tells_what_ran_and_for_how_long(caplog, engine, make_picture):
    caplog.set_level(logging.INFO, "dinodemo")
    entry = request_log.Entry("attention_tab", "on_photo")
    with entry.active():
        engine.features(make_picture(), 70)
        engine.features(make_picture(), 70)
        list(engine.features_batch([make_picture(seed=1), make_picture(seed=2)], 70))
    entry.end("ok")
    (line,) = lines(caplog)
    assert (line["computed"], line["cached"]) == (3, 1) and line["ms"] >= 0
    assert (line["tab"], line["action"], line["outcome"]) == ("attention_tab", "on_photo", "ok")


def test_folders_and_ids_are_not_named(caplog, engine, make_picture):
    caplog.set_level(logging.INFO, "dinodemo")
    entry = request_log.Entry("tab", "action")
    with entry.active():
        engine.features(make_picture(), 70)  # its backbone is a folder
        request_log.note(OFFLINE_DEFAULT)
    entry.end("ok")
    assert lines(caplog)[0]["backbone"] == f"other+{OFFLINE_DEFAULT}"


def test_outside_of_a_request_nothing_is_noted(caplog, engine, make_picture):
    caplog.set_level(logging.DEBUG, "dinodemo")
    engine.features(make_picture(), 70)
    assert request_log.current() is None and lines(caplog) == []


def test_what_is_quick_and_went_well_is_not_worth_a_line(caplog):
    caplog.set_level(logging.INFO, "dinodemo")
    for outcome in ("ok", "refused"):
        request_log.Entry("tab", "tick").end(outcome)
    assert [line["outcome"] for line in lines(caplog)] == ["refused"]


@pytest.mark.parametrize("text", ["plain", 'with "quotes"\nand lines'])
def test_every_record_is_one_json_object(text):
    record = logging.LogRecord("dinodemo.engine.pool", logging.WARNING, "", 0, text, (), None)
    line = request_log.JsonLines().format(record)
    assert "\n" not in line
    expected = {"time": 0, "level": "warning", "logger": "dinodemo.engine.pool", "message": text}
    assert json.loads(line) | {"time": 0} == expected


def test_errors_are_logged_without_their_own_text_and_long_messages_are_cut():
    from dinodemo.engine.request_log import JsonLines

    name = "Anna's SECRET.jpg"
    try:
        raise KeyError(name)
    except KeyError:
        record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "went wrong", (), sys.exc_info())
    line = json.loads(JsonLines().format(record))
    assert line["error"] == "KeyError" and "test_request_log" in line["traceback"] and "SECRET" not in str(line)
    record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "y" * 10_000_000, (), None)
    assert len(JsonLines().format(record)) < 11_000
