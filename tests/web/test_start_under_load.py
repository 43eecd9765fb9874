"""The app started while the machine is busy with other things: it takes longer, and it starts."""

import os
import subprocess
import sys
import time

import pytest

BUSY = int(os.environ.get("DINODEMO_TEST_LOAD", "0"))
LOOP = "while True: pass"


@pytest.mark.skipif(not BUSY, reason="takes a minute or more: set DINODEMO_TEST_LOAD=4 for so many busy loops")
def test_the_app_starts_beside_busy_loops(start_server):
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(BUSY)]
    began = time.monotonic()
    try:
        server = start_server()
        seconds = time.monotonic() - began
        assert server.http.get("/healthz").json()["status"] == "ok"
        sys.stdout.write(f"{seconds:.1f} s beside {BUSY} loops\n")  # for pytest -s
        log = server.log.read_text()
        assert "Traceback" not in log and "not accessible" not in log
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
