"""Ages on a machine whose clock is set while the process runs."""

import pytest
from clocks import YEAR

from dinodemo.io import clock

DAY = 86400.0


def test_without_a_set_clock_an_age_is_what_the_clock_says(clocks):
    assert clock.age(clocks.wall() - 5 * DAY) == pytest.approx(5 * DAY, abs=1)
    clocks.let_pass(3 * DAY)
    assert clock.age(clocks.wall() - 5 * DAY) == pytest.approx(5 * DAY, abs=1)


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_a_clock_that_was_set_makes_nothing_old_and_all_gets_its_full_time_again(clocks, jump):
    written = clocks.wall() - DAY
    clocks.set(jump)
    assert clock.age(written) < 60 and clock.age(clocks.wall()) < 60
    clocks.let_pass(2 * DAY)
    assert clock.age(written) == pytest.approx(2 * DAY, abs=60)
    assert clock.age(clocks.wall() - DAY) == pytest.approx(DAY, abs=60)


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_what_was_written_while_the_clock_was_wrong_is_not_old_when_it_is_right_again(clocks, jump):
    clocks.set(jump)
    clocks.let_pass(10)
    written = clocks.wall()
    clocks.let_pass(10)
    clocks.set(-jump)
    assert clock.age(written) < 60
    clocks.let_pass(5 * DAY)
    assert clock.age(written) == pytest.approx(5 * DAY, abs=60)  # it is swept in the end


def test_what_an_earlier_process_dated_ahead_ages_from_the_start_of_this_one(clocks, monkeypatch):
    monkeypatch.setattr(clock, "_begun", clocks.steady() - 100)
    assert clock.age(clocks.wall() + YEAR) == pytest.approx(100, abs=60)


def test_small_steps_of_the_clock_are_no_reason_to_begin_anew(clocks):
    written = clocks.wall() - 5 * DAY
    for _ in range(10):
        clocks.set(1.0)
    assert clock.age(written) > 5 * DAY
