"""The core's errors on the page, and the line that every request leaves in the log."""

import logging

import gradio as gr
import pytest

from dinodemo.engine import request_log
from dinodemo.web.background import Work
from dinodemo.web.errors import friendly


@friendly
def fail(error):
    raise error


@friendly
def fail_midway(error):
    yield 1
    raise error


@friendly
def call_another(error):
    fail(error)


@friendly
def count(last):
    yield from range(last)


@pytest.fixture
def outcomes(caplog):
    """Give the outcomes of the requests so far."""
    caplog.set_level(logging.DEBUG, "dinodemo.requests")
    return lambda: [(r.facts["action"], r.facts["outcome"]) for r in caplog.records if hasattr(r, "facts")]


def test_user_errors_are_shown_as_sentences():
    with pytest.raises(gr.Error, match=r"Mask is empty; draw one\.") as caught:
        fail(ValueError("mask is empty; draw one"))
    assert not caught.value.print_exception


def test_file_names_keep_their_case():
    with pytest.raises(gr.Error, match=r"^'photo\.jpg is empty"):
        fail(ValueError("photo.jpg is empty"))


def test_generators_show_what_came_before():
    steps = fail_midway(RuntimeError("no memory"))
    assert next(steps) == 1
    with pytest.raises(gr.Error, match="No memory"):
        next(steps)


@pytest.mark.parametrize("error", [KeyError("/secret/path"), RuntimeError("CUDA error:\n /secret/path")], ids=type)
def test_unexpected_errors_are_named_and_their_place_is_logged_but_not_their_text(caplog, error):
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        fail(error)
    assert "/secret" not in str(caught.value) and "/secret" not in caplog.text
    assert type(error).__name__ in caplog.text and "in fail" in caplog.text
    assert caplog.records[-1].args[1] in str(caught.value)  # the reference


def test_every_call_is_one_line_with_its_outcome(outcomes):
    for error in (ValueError("no"), gr.Error("no", print_exception=False), KeyError("no")):
        with pytest.raises(gr.Error):
            fail(error)
    assert list(count(3)) == [0, 1, 2]
    with pytest.raises(gr.Error):
        call_another(ValueError("no"))
    assert outcomes() == [
        ("fail", "refused"),
        ("fail", "refused"),
        ("fail", "error"),
        ("count", "ok"),
        ("call_another", "refused"),
    ]


def test_a_generator_that_is_closed_was_cancelled(outcomes):
    steps = count(3)
    next(steps)
    steps.close()
    assert outcomes() == [("count", "cancelled")]


def test_work_in_a_thread_counts_for_its_request(caplog):
    caplog.set_level(logging.INFO, "dinodemo.requests")

    @friendly
    def long():
        yield from Work(lambda progress: request_log.note("dinov2-small", computed=5)).steps()

    list(long())
    assert [r.facts["computed"] for r in caplog.records] == [5]
