"""Apps and trainings killed at random moments: the state comes true again, and every run finishes.

Twice each with the small script of test_runs; DINODEMO_TEST_KILLS=10 asks for ten of each, and of the training core.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs.fake import FAKE, OWNER, pid_of
from patience import SECONDS

from dinodemo.io.states import RunState
from dinodemo.jobs.processes import is_training
from dinodemo.jobs.runs import Limits, Runs

KILLS = int(os.environ.get("DINODEMO_TEST_KILLS", "2"))
APP = """
import sys, time
from pathlib import Path
from dinodemo.jobs.runs import Limits, Runs
Runs(Path(sys.argv[1]), Limits(free_disk=0, free_memory=0), tuple(sys.argv[2:]) or None).watch()
print("ready", flush=True)
time.sleep(3600)
"""


class App:
    """An app's background part, in a process of its own."""

    def __init__(self, root: Path, command: tuple[str, ...]):
        arguments = [sys.executable, "-c", APP, str(root), *command]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def zombies(self) -> list[str]:
        """Return its children that ended and were not taken note of."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [c for c in children if Path(f"/proc/{c}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"]


def seen(runs: Runs, run_id: str, *states: RunState):
    """Wait for a state without looking after the runs: that is the app's work."""
    end = time.monotonic() + SECONDS
    while (info := runs.info(OWNER, run_id)).state not in states:
        assert time.monotonic() < end, f"{info} is not {states} after {SECONDS} s"
        time.sleep(0.05)
    return info


@pytest.fixture(
    params=[
        "script",
        pytest.param(
            "training core",
            marks=pytest.mark.skipif(
                "DINODEMO_TEST_KILLS" not in os.environ, reason="takes minutes: set DINODEMO_TEST_KILLS=10"
            ),
        ),
    ]
)
def core(request, tmp_path, short) -> tuple[tuple[str, ...], str, dict]:
    """Give a command, a backbone and settings of a run that outlasts the kills."""
    if request.param == "training core":
        settings = dict(short)
        return (), settings.pop("backbone"), {**settings, "steps": 1500 * KILLS, "eval_every": 100}
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    return (sys.executable, str(script)), "b", {"steps": 100 * KILLS}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks /proc for an app's children: Linux only")
def test_no_run_is_lost_whatever_is_killed(tmp_path, photos, core):
    command, backbone, settings = core
    chance, root = random.Random(0), tmp_path / "runs"
    runs = Runs(root, Limits(free_disk=0, free_memory=0))
    run_id = runs.submit(OWNER, "r", photos, backbone, settings)
    app = App(root, command)
    try:
        pid = pid_of(seen(runs, run_id, RunState.RUNNING))
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.5))
            app.kill()
            app = App(root, command)
            seen(runs, run_id, RunState.RUNNING)
            assert is_training(pid, runs.path(OWNER, run_id))
        for _ in range(KILLS):
            reached = seen(runs, run_id, RunState.RUNNING)
            time.sleep(chance.uniform(0, 0.5))
            os.kill(pid_of(reached), signal.SIGKILL)
            assert seen(runs, run_id, RunState.INTERRUPTED).step >= reached.step
            end = time.monotonic() + SECONDS
            while app.zombies():  # the app looks after its children every second
                assert time.monotonic() < end, "the app leaves its ended children as zombies"
                time.sleep(0.05)
            runs.go_on(OWNER, run_id)
        assert seen(runs, run_id, RunState.FINISHED).step == settings["steps"]
    finally:
        app.kill()
        if not runs.info(OWNER, run_id).over:
            os.kill(pid_of(runs.info(OWNER, run_id)), signal.SIGKILL)
