"""Background runs: the queue, the true state after any death, resuming. A small script stands in for the training."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from patience import SECONDS

from dinodemo.jobs.processes import is_training
from dinodemo.jobs.runs import NICENESS, Limits, Runs

from .fake import OTHER, OWNER, pid_of, wait

SLEEP = "import time; time.sleep(3600)"


def test_a_run_goes_from_the_queue_to_its_end(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "my  run", folder, "dinov2-small", {"steps": 5, "lr": 1e-4})
    assert runs.info(OWNER, run_id).state == "queued"
    info = wait(runs, run_id, "finished")
    assert (info.name, info.step, info.total) == ("my run", 5, 5) and info.over
    assert json.loads((info.path / "config.json").read_text()) == {"steps": "5", "lr": "0.0001"}


def test_one_runs_at_a_time_and_the_others_know_their_place(make, folder):
    runs = make()
    first, second, third = (runs.submit(OWNER, str(i), folder, "b", {"steps": 30}) for i in range(3))
    wait(runs, first, "running")
    assert [runs.info(OWNER, i).queue_position for i in (second, third)] == [1, 2]
    states = set()
    while runs.info(OWNER, third).state != "finished":
        runs.tick()
        states.add(sum(info.state in ("starting", "running") for info in runs.runs_of(OWNER)))
        time.sleep(0.02)
    assert max(states) == 1
    assert [info.state for info in runs.runs_of(OWNER)] == ["finished"] * 3


def test_a_run_is_ended_before_the_app_when_memory_runs_out(make, folder):
    runs = make()
    info = wait(runs, runs.submit(OWNER, "a", folder, "b", {"steps": 500}), "running")
    rank = Path(f"/proc/{pid_of(info)}/oom_score_adj")
    if not rank.exists():
        pytest.skip("this system does not say whom it ends first")
    assert rank.read_text().strip() == "1000"


def test_a_run_yields_to_the_app_as_a_process_and_as_a_session(make, folder):
    runs = make()
    info = wait(runs, runs.submit(OWNER, "a", folder, "b", {"steps": 500}), "running")
    assert os.getpriority(os.PRIO_PROCESS, pid_of(info)) == NICENESS > 0
    session = Path(f"/proc/{pid_of(info)}/autogroup")
    if not session.exists():
        pytest.skip("this system does not weigh sessions")
    assert session.read_text().split()[-1] == str(NICENESS)


def test_pause_go_on_and_cancel_then_resume(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 200})
    wait(runs, run_id, "running")
    runs.pause(OWNER, run_id)
    held = wait(runs, run_id, "paused")
    time.sleep(0.2)
    assert runs.info(OWNER, run_id).step == held.step
    runs.go_on(OWNER, run_id)
    wait(runs, run_id, "running")
    runs.cancel(OWNER, run_id)
    stopped = wait(runs, run_id, "stopped")
    assert 0 < stopped.step < 200
    runs.go_on(OWNER, run_id)
    assert wait(runs, run_id, "running").step >= stopped.step
    assert wait(runs, run_id, "finished").step == 200


def test_a_run_that_is_cancelled_while_it_starts_is_stopped_and_not_failed(tmp_path, folder):
    runs = Runs(tmp_path / "runs", Limits(free_disk=0, free_memory=0), (sys.executable, "-c", SLEEP))
    run_id = runs.submit(OWNER, "r", folder, "b", {})
    wait(runs, run_id, "starting")
    runs.cancel(OWNER, run_id)
    assert wait(runs, run_id, "stopped").message == "stopped before its first step"
    runs.go_on(OWNER, run_id)
    assert runs.info(OWNER, run_id).state == "queued"


def test_a_waiting_run_can_be_taken_out_and_put_back(make, folder):
    runs = make()
    first = runs.submit(OWNER, "1", folder, "b", {"steps": 100})
    second = runs.submit(OWNER, "2", folder, "b", {"steps": 3})
    wait(runs, first, "running")
    runs.cancel(OWNER, second)
    assert runs.info(OWNER, second).state == "stopped"
    runs.go_on(OWNER, second)
    assert runs.info(OWNER, second).state == "queued"


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_a_killed_process_is_seen_and_its_run_finishes_after_a_resume(make, folder, delay):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 60})
    info = wait(runs, run_id, "running")
    time.sleep(delay)
    os.kill(pid_of(info), signal.SIGKILL)
    dead = wait(runs, run_id, "interrupted")
    assert dead.over and "resume" in dead.message
    runs.go_on(OWNER, run_id)
    assert wait(runs, run_id, "finished").step == 60


def test_another_app_finds_the_run_and_takes_over(make, folder):
    before = make()
    run_id = before.submit(OWNER, "r", folder, "b", {"steps": 150})
    pid = pid_of(wait(before, run_id, "running"))
    after = make()  # as after a restart: it has no children
    assert after.info(OWNER, run_id).state == "running"
    second = after.submit(OWNER, "2", folder, "b", {"steps": 3})
    after.tick()
    assert after.info(OWNER, second).state == "queued"
    after.cancel(OWNER, run_id)
    wait(before, run_id, "stopped")
    before._children[before.path(OWNER, run_id)].wait()
    wait(after, second, "finished")
    assert not is_training(pid, after.path(OWNER, run_id))


def test_no_zombie_is_left(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 3})
    pid = pid_of(wait(runs, run_id, "finished"))
    deadline = time.time() + SECONDS
    while time.time() < deadline and os.path.exists(f"/proc/{pid}"):
        runs.tick()
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_process_that_cannot_start_says_why(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"bad": "yes"})
    assert wait(runs, run_id, "failed").message == "a setting is wrong; choose another"


def test_runs_of_others_are_out_of_reach(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {})
    assert runs.runs_of(OTHER) == []
    for owner, asked in ((OTHER, run_id), (OWNER, "../" + run_id), (OWNER, ""), (OWNER, None)):
        with pytest.raises(ValueError, match="no such run"):
            runs.info(owner, asked)
    with pytest.raises(ValueError, match="reload"):
        runs.runs_of("../" + "a" * 30)


def test_a_live_run_cannot_be_deleted_and_a_dead_one_leaves_nothing(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 100})
    path = wait(runs, run_id, "running").path
    with pytest.raises(ValueError, match="cancel it first"):
        runs.delete(OWNER, run_id)
    runs.cancel(OWNER, run_id)
    wait(runs, run_id, "stopped")
    runs.delete(OWNER, run_id)
    assert not path.exists()


@pytest.mark.parametrize(
    ("limits", "error", "told"),
    [
        ({"photos": 0}, ValueError, "more than the 0 files"),
        ({"photo_bytes": 10}, ValueError, "GB"),
        ({"runs": 0}, ValueError, "0 runs"),
        ({"free_disk": 1 << 60}, RuntimeError, "disk"),
    ],
)
def test_limits_are_told(make, folder, limits, error, told):
    with pytest.raises(error, match=told):
        make(**limits).submit(OWNER, "r", folder, "b", {})


def test_without_memory_the_queue_waits(make, folder):
    runs = make(free_memory=1 << 60)
    run_id = runs.submit(OWNER, "r", folder, "b", {})
    for _ in range(3):
        runs.tick()
    assert runs.info(OWNER, run_id).state == "queued"


def test_a_run_beyond_its_time_is_stopped_with_a_checkpoint(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 10_000})
    wait(runs, run_id, "running")
    runs.limits = replace(runs.limits, hours=0.0)
    assert 0 < wait(runs, run_id, "stopped").step < 10_000


def test_old_runs_are_swept(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 2})
    path = wait(runs, run_id, "finished").path
    old = time.time() - 15 * 86400
    os.utime(path / "request.json", (old, old))
    runs.tick()
    assert not path.exists()
