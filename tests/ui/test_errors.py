"""The core's errors on the page."""

import logging

import gradio as gr
import pytest

from dinodemo.ui.errors import friendly


@friendly
def fail(error):
    raise error


@friendly
def fail_midway(error):
    yield 1
    raise error


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


def test_unexpected_errors_are_logged_not_shown(caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        fail(KeyError("/secret/path"))
    assert "/secret" not in str(caught.value) and "/secret" in caplog.text
