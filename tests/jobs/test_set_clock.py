"""Runs on a machine whose clock is set forth and back while they wait, train, and lie there finished."""

import json

import pytest
from clocks import YEAR

from dinodemo.jobs import records
from dinodemo.jobs import runs as module

from .fake import OTHER, OWNER, wait


@pytest.fixture(autouse=True)
def _all_clocks(clocks, monkeypatch):
    """Let the moments that are written down follow the clock that is set, too."""
    for one in (module, records):
        monkeypatch.setattr(one, "time", _Time(one.time, clocks.wall))


class _Time:
    def __init__(self, real, wall):
        self._real, self.time = real, wall

    def __getattr__(self, name):
        return getattr(self._real, name)


@pytest.mark.parametrize("jumps", [(YEAR,), (-YEAR,), (YEAR, -YEAR), (-YEAR, YEAR)])
def test_no_run_is_removed_or_ended_when_the_clock_is_set(make, folder, clocks, jumps):
    runs = make()
    done = runs.submit(OWNER, "done", folder, "b", {"steps": 1})
    wait(runs, done, "finished")
    live = runs.submit(OWNER, "live", folder, "b", {"steps": 10_000})
    before = wait(runs, live, "running")
    for jump in jumps:
        clocks.set(jump)
        for _ in range(3):
            runs.tick()
        assert runs.info(OWNER, done).state == "finished"
        assert runs.info(OWNER, live).state == "running"
    assert json.loads((before.path / "request.json").read_text())["wanted"] == "run"
    clocks.let_pass(13 * 3600.0)  # beyond what one run may take, by the clock that nobody sets
    assert wait(runs, live, "stopped").step >= before.step
    clocks.let_pass(15 * 86400.0)
    runs.tick()
    assert not before.path.exists()


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_the_queue_keeps_its_order_and_goes_on(make, folder, clocks, jump):
    runs = make()
    ids = []
    for by in (0.0, jump, -jump):
        clocks.set(by)
        ids.append(runs.submit(OWNER, "r", folder, "b", {"steps": 1}))
    assert [runs.info(OWNER, run_id).queue_position for run_id in ids] == [1, 2, 3]
    for run_id in ids:
        wait(runs, run_id, "finished")


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_a_set_clock_uses_up_nobodys_hours(make, folder, clocks, jump):
    runs = make(hours_a_day=1.0)
    clocks.set(jump)
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 1}, address="1.2.3.4")
    path = wait(runs, run_id, "finished").path
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**status, "heartbeat": clocks.wall()}))
    clocks.set(-jump)
    runs.submit(OTHER, "r", folder, "b", {"steps": 1}, address="1.2.3.4")
