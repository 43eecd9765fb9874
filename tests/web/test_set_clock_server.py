"""The real server and a real training while their clock is set forth and back by a year, every few seconds.

It takes a minute, so it runs with DINODEMO_TEST_CLOCK=1. Python's clock is set in both processes; the dates that the
system writes on files stay as they are. libfaketime would set those, too, but Python's sleep fails under it.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from clocks import YEAR
from patience import SECONDS
from PIL import Image
from test_isolation import picture
from visitor import Visitor

from dinodemo.io.files import read_json
from dinodemo.jobs.runs import Limits, Runs
from dinodemo.web.owner import new_owner

JUMPS = (YEAR, 0.0, -YEAR, 0.0, YEAR, -YEAR, 0.0)
SET = """
import os, time
from pathlib import Path
real, real_ns, seen = time.time, time.time_ns, [-1.0, 0.0]

def ahead():
    if time.monotonic() - seen[0] > 0.2:
        seen[:] = time.monotonic(), float(Path(os.environ["TEST_AHEAD"]).read_text() or 0)
    return seen[1]

time.time = lambda: real() + ahead()
time.time_ns = lambda: real_ns() + int(ahead() * 1e9)
"""  # the sitecustomize of both processes


@pytest.mark.skipif("DINODEMO_TEST_CLOCK" not in os.environ, reason="takes a minute: set DINODEMO_TEST_CLOCK=1")
def test_a_server_whose_clock_is_set_loses_nothing_and_goes_on(start_server, tiny_folder, tmp_path):
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "sitecustomize.py").write_text(SET)
    server = start_server(PYTHONPATH=str(tmp_path / "set"), TEST_AHEAD=str(ahead))
    visitor = Visitor(server.url)
    visitor.set("resolution", 224)
    visitor.set("attention-photo", visitor.upload("a.png", picture(5)))
    visitor.fire("attention-photo", "upload")
    files = [{"path": visitor.upload(f"{i}.png", picture(i))["path"], "name": f"{i}.png"} for i in range(5)]
    visitor.set("build-picker", {"files": files})
    visitor.set("build-name", "kept")
    visitor.fire("build-add", "click")

    (tmp_path / "photos").mkdir()
    for i in range(16):
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    runs, owner = Runs(server.folder / "runs", Limits(free_disk=0)), new_owner()
    sizes = {"global_size": 28, "local_size": 14, "eval_size": 28, "n_local": 1, "batch_size": 4}
    head = {"prototypes": 16, "head_hidden": 16, "head_bottleneck": 8}
    settings = {**sizes, **head, "steps": 100_000, "eval_every": 1000}
    ids = [runs.submit(owner, str(i), tmp_path / "photos", str(tiny_folder), settings) for i in range(2)]
    wait(runs, owner, ids[0], "running")
    for jump in JUMPS:
        ahead.write_text(str(jump))
        time.sleep(4)  # the server looks at its runs every second
        visitor.fire("point-ask", "click")
        assert visitor.get("build-status")
        before = runs.info(owner, ids[0])
        assert before.state == "running" and runs.info(owner, ids[1]).queue_position == 1
        end = time.monotonic() + SECONDS
        while runs.info(owner, ids[0]).step == before.step:
            assert time.monotonic() < end, f"the step stands still at {before.step} after {jump}"
            time.sleep(0.1)
        assert server.http.get("/healthz").json()["status"] == "ok"
    assert all(Path(file["path"]).is_file() for file in files)
    assert list((server.folder / "tmp" / "dinodemo-indexes").glob("*/kept"))
    runs.cancel(owner, ids[1])
    runs.cancel(owner, ids[0])
    assert wait(runs, owner, ids[0], "stopped").step > 0
    assert read_json(runs.path(owner, ids[0]) / "status.json")["state"] == "stopped"
    assert "Traceback" not in server.log.read_text() and "unexpected" not in server.log.read_text()


def wait(runs: Runs, owner: str, run_id: str, state: str):
    """Wait for a state; the server looks after the runs."""
    end = time.monotonic() + SECONDS
    while (info := runs.info(owner, run_id)).state != state:
        assert time.monotonic() < end, info
        time.sleep(0.1)
    return info
