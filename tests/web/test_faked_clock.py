"""The real server and a real training while their clock is set forth and back by a year, every few seconds.

DINODEMO_TEST_FAKETIME names libfaketimeMT.so.1 (Debian has it), which stands between them and the clock.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from patience import SECONDS
from PIL import Image
from test_isolation import picture
from visitor import Visitor

from dinodemo.io.files import read_json
from dinodemo.jobs.runs import Limits, Runs
from dinodemo.web.owner import new_owner

LIBRARY = os.environ.get("DINODEMO_TEST_FAKETIME", "")
JUMPS = ("+365d", "+0", "-365d", "+0", "+365d", "-365d", "+0")


@pytest.mark.skipif(not LIBRARY, reason="takes a minute: set DINODEMO_TEST_FAKETIME to the path of libfaketimeMT.so.1")
def test_a_server_whose_clock_is_set_loses_nothing_and_goes_on(start_server, tiny_folder, tmp_path):
    now = tmp_path / "now"
    now.write_text("+0")
    faked = {"FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1"}
    server = start_server(LD_PRELOAD=LIBRARY, FAKETIME_DONT_FAKE_MONOTONIC="1", **faked)
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
        now.write_text(jump)
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
