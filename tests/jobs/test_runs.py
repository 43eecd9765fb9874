"""Background runs: the queue, the true state after any death, resuming. A small script stands in for the training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from patience import SECONDS

from dinodemo.io.states import RunState
from dinodemo.jobs import runs as module
from dinodemo.jobs.processes import is_training, started_at
from dinodemo.jobs.runs import NICENESS, Limits, Runs

STATES = frozenset(str(state) for state in RunState)
WRONG = [
    {},
    [],
    {"queued": "now", "folder": "x"},
    {"queued": None, "folder": None, "launched": {}, "pid": "7", "wanted": 3},
    {"state": 3, "step": "x", "heartbeat": None, "pid": [], "total": {}, "message": {}, "eta_s": "soon"},
]
SLEEP = "import time; time.sleep(3600)"
OWNER, OTHER = "a" * 32, "b" * 32
# writes what the training core writes: a lock, status.json with a heartbeat, a step number that survives
FAKE = """
import fcntl, json, os, signal, sys, time
args = sys.argv[1:]
out = args[args.index('--out') + 1]
lock = open(out + '/.lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
resume = '--resume' in args
settings = dict(a.split('=') for f, a in zip(args, args[1:]) if f == '--set')
if not resume: json.dump(settings, open(out + '/config.json', 'w'))
settings = json.load(open(out + '/config.json'))
if settings.get('bad') == 'yes': sys.exit('dinodemo: a setting is wrong; choose another')
total = int(settings.get('steps', 40)); stop = []
signal.signal(signal.SIGTERM, lambda *a: stop.append(1))
try: step = int(open(out + '/step').read())
except (OSError, ValueError): step = 0
def put(name, text):
    with open(out + '/part', 'w') as file: file.write(text)
    os.replace(out + '/part', out + '/' + name)
def tell(state):
    status = dict(state=state, step=step, total=total, eta_s=1.0, heartbeat=time.time(), message='')
    put('status.json', json.dumps(status))
while step < total:
    if stop: tell('stopped'); sys.exit()
    if os.path.exists(out + '/pause'): tell('paused'); time.sleep(0.02); continue
    step += 1; put('step', str(step)); tell('running'); time.sleep(0.02)
tell('finished')
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    (path / "a.jpg").write_bytes(b"x" * 100)
    return path


@pytest.fixture
def make(tmp_path):
    """Return a function that makes what one app would: several see the same folder."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    made = []

    def make_runs(**limits) -> Runs:
        limits = {"free_disk": 0, "free_memory": 0, **limits}
        made.append(Runs(tmp_path / "runs", Limits(**limits), (sys.executable, str(script))))
        return made[-1]

    yield make_runs
    for runs in made:
        for child in runs._children.values():
            child.kill()
            child.wait()


def wait(runs, run_id, *states, seconds=SECONDS):
    """Tick until the run is in one of the states; returns what is known of it."""
    end = time.time() + seconds
    while time.time() < end:
        runs.tick()
        info = runs.info(OWNER, run_id)
        if info.state in states:
            return info
        time.sleep(0.02)
    raise AssertionError(f"{info} is not {states}")


def pid_of(info) -> int:
    return json.loads((info.path / "request.json").read_text())["pid"]


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


def test_a_look_at_the_runs_reads_each_request_once(make, folder, monkeypatch):
    runs = make(free_memory=1 << 60)
    ids = [runs.submit(OWNER, str(i), folder, "b", {}) for i in range(12)]
    read, real = Counter(), module.read_request
    monkeypatch.setattr(module, "read_request", lambda path: read.update([path.name]) or real(path))
    runs.tick()
    assert read == Counter(ids)
    read.clear()
    positions = {info.id: info.queue_position for info in runs.runs_of(OWNER)}
    assert [positions[i] for i in ids] == list(range(1, 13))
    assert max(read.values()) <= 2  # the person's own, and the line's


def test_the_queue_has_an_end_for_all_and_for_one_address(make, folder):
    runs = make(free_memory=1 << 60, queue=3, queue_per_address=2)
    first = [runs.submit(OWNER, "r", folder, "b", {}, address="1.2.3.4") for _ in range(2)]
    with pytest.raises(ValueError, match="2 of your runs wait"):
        runs.submit(OTHER, "r", folder, "b", {}, address="1.2.3.4")
    runs.submit(OTHER, "r", folder, "b", {}, address="5.6.7.8")
    with pytest.raises(ValueError, match="3 runs wait already"):
        runs.submit(OTHER, "r", folder, "b", {}, address="9.9.9.9")
    runs.cancel(OWNER, first[0])
    runs.submit(OTHER, "r", folder, "b", {}, address="1.2.3.4")
    with pytest.raises(ValueError, match="3 runs wait already"):
        runs.go_on(OWNER, first[0])


def test_an_address_gets_so_many_hours_a_day(make, folder):
    runs = make(free_memory=1 << 60, hours_a_day=1.0)
    run_id = runs.submit(OWNER, "r", folder, "b", {}, address="1.2.3.4")
    path, now = runs.path(OWNER, run_id), time.time()
    module.change_request(path, launched=now - 7200, pid=1)
    (path / "status.json").write_text(json.dumps({"state": "finished", "heartbeat": now - 600, "pid": 1}))
    with pytest.raises(ValueError, match=r"1\.8 hours within a day"):
        runs.submit(OTHER, "r", folder, "b", {}, address="1.2.3.4")
    runs.submit(OTHER, "r", folder, "b", {}, address="5.6.7.8")


@pytest.mark.parametrize("name", ["request.json", "status.json", "config.json"])
@pytest.mark.parametrize("content", WRONG)
def test_files_of_a_wrong_kind_do_not_stop_the_queue(make, folder, name, content):
    runs = make()
    broken = runs.submit(OWNER, "broken", folder, "b", {"steps": 2})
    (runs.path(OWNER, broken) / name).write_text(json.dumps(content))
    sound = runs.submit(OTHER, "sound", folder, "b", {"steps": 2})
    end = time.time() + SECONDS
    while time.time() < end and runs.info(OTHER, sound).state != "finished":
        runs.tick()
        assert runs.runs_of(OWNER)[0].state in STATES
        time.sleep(0.02)
    assert runs.info(OTHER, sound).state == "finished"


@pytest.mark.parametrize("how", ["truncated", "emptied", "a folder"])
def test_whatever_becomes_of_a_runs_files_the_queue_goes_on(make, folder, how):
    runs = make()
    names = ["request.json", "status.json", "config.json", "output.txt", ".lock", "step", "pause"]
    broken = [runs.submit(OWNER, name, folder, "b", {"steps": 2}) for name in names]
    for run_id in broken:
        wait(runs, run_id, "finished")
    for run_id, name in zip(broken, names, strict=True):
        spoil(runs.path(OWNER, run_id) / name, how)
    again = make()  # as after a restart
    assert {info.state for info in again.runs_of(OWNER)} <= STATES
    sound = again.submit(OTHER, "sound", folder, "b", {"steps": 2})
    end = time.time() + SECONDS
    while time.time() < end and again.info(OTHER, sound).state != "finished":
        again.tick()
        time.sleep(0.02)
    assert again.info(OTHER, sound).state == "finished"
    for run_id in broken:
        if (again.owner_folder(OWNER) / run_id / "request.json").is_file() and again.info(OWNER, run_id).over:
            again.delete(OWNER, run_id)


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    if how == "a folder":
        path.mkdir()
    else:
        path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")


def test_cleaners_are_called_by_the_watcher(make):
    runs, called = make(), []
    runs.clean_with(lambda: called.append(1))
    runs.tick()
    runs.tick()
    assert called == [1]


def test_a_stranger_with_the_same_number_is_no_training(tmp_path):
    assert not is_training(os.getpid(), tmp_path)
    for pid in (None, 0, -1, True, "1", 2**70, 4_000_000):
        assert not is_training(pid, tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path)], stdin=subprocess.PIPE)
    try:
        assert is_training(child.pid, tmp_path, started_at(child.pid))
        assert not is_training(child.pid, tmp_path / "other")
    finally:
        child.kill()
        child.wait()
    assert not is_training(child.pid, tmp_path)


def test_the_start_decides_where_a_command_line_cannot_be_read(tmp_path, monkeypatch):
    def denied(self):
        raise psutil.AccessDenied()

    monkeypatch.setattr(psutil.Process, "cmdline", denied)
    started = started_at(os.getpid())
    assert is_training(os.getpid(), tmp_path, started)
    assert not is_training(os.getpid(), tmp_path, started - 60)
    assert not is_training(os.getpid(), tmp_path)


def test_old_runs_are_swept(make, folder):
    runs = make()
    run_id = runs.submit(OWNER, "r", folder, "b", {"steps": 2})
    path = wait(runs, run_id, "finished").path
    old = time.time() - 15 * 86400
    os.utime(path / "request.json", (old, old))
    runs.tick()
    assert not path.exists()
