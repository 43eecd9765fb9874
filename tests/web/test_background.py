"""Long work in a thread: progress, result, errors, stop."""

import copy
import threading

import pytest
from patience import SECONDS

from dinodemo.web.background import Stopped, Work


def test_steps_then_result():
    def count(progress):
        for i in range(3):
            progress(i + 1, 3, f"step {i + 1}")
        return "done"

    work = Work(count)
    assert list(work.steps()) == [(1 / 3, "step 1"), (2 / 3, "step 2"), (1.0, "step 3")]
    assert work.result == "done"


def test_errors_come_through():
    def fail(progress):
        raise ValueError("bad pair")

    with pytest.raises(ValueError, match="bad pair"):
        list(Work(fail).steps())


def test_stop_ends_it_at_the_next_step():
    reached = threading.Event()
    go_on = threading.Event()

    def endless(progress):
        while True:
            progress(0, None, "working")
            reached.set()
            go_on.wait(10)

    work = Work(endless)
    steps = work.steps()
    next(steps)
    reached.wait(10)
    copy.deepcopy(work).stop()  # the page's state may be copied
    go_on.set()
    with pytest.raises(Stopped):
        list(steps)


def test_work_that_ends_in_its_own_way_is_not_broken_off():
    go_on = threading.Event()

    def count(_):
        for i in range(9):
            if work.asked_to_stop():
                return f"{i} done"
            work.report(i, 9, "working")
            go_on.wait(SECONDS)
            work.report(i + 1, 9, "working")  # stop was asked for just before
        return "all done"

    work = Work(count)
    steps = work.steps()
    next(steps)
    work.stop()
    go_on.set()
    assert list(steps) == [(1 / 9, "working")] and work.result == "1 done"


def test_it_stops_when_the_visitor_leaves():
    ended = threading.Event()

    def endless(progress):
        try:
            while True:
                progress(0, None, "working")
        finally:
            ended.set()

    work = Work(endless)
    steps = work.steps()
    next(steps)
    assert not work.asked_to_stop()
    steps.close()  # as Gradio does with a page that is gone
    assert work.asked_to_stop()
    assert ended.wait(SECONDS)
