"""What benchmarks share: timing, memory of a fresh process, the example photo."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PHOTO = ROOT / "assets" / "chinese_palace.jpg"


def seconds(function: Callable, repeats: int) -> float:
    """Return the median time of `repeats` calls after one call that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def resident_peak() -> int:
    """Return this process's peak resident memory since `reset_peak`, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status; this benchmark needs Linux")


def reset_peak() -> int:
    """Reset the peak to what is resident now; returns that, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def in_fresh_process(script: str, *arguments: str) -> dict:
    """Run `script --measure ...` in a process of its own; returns the JSON object that it prints last."""
    command = [sys.executable, script, "--measure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
