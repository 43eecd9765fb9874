"""Files made to harm, through the functions that the page calls: a sentence or a result, within one gigabyte."""

import json
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from patience import SECONDS

ROOT = Path(__file__).resolve().parents[1]
READ = """
import json, resource, sys, time, warnings
from pathlib import Path
sys.path[:0] = ["tests", "."]
warnings.simplefilter("ignore")
import cv2, fuzzing, hostile
from dinodemo.web.errors import is_expected

folder = Path(sys.argv[1])
readers = fuzzing.readers(folder)
for number, (kind, read) in enumerate(readers.items()):  # imports, before the memory is bounded
    path = folder / f"none{number}"
    path.write_bytes(b"nothing")
    try: read(path)
    except Exception: pass
(folder / "a.png").write_bytes(fuzzing.pictures()["a.png"])
readers["picture"](folder / "a.png")
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 1_000_000_000,) * 2)
for number, (kind, name, content) in enumerate(hostile.cases()):
    path = folder / str(number) / name
    path.parent.mkdir()
    path.write_bytes(content)
    started = time.monotonic()
    try:
        readers[kind](path); outcome = "read"
    except Exception as error:
        text = str(error)
        fine = is_expected(error) and not isinstance(error, UnicodeError) and str(folder) not in text
        outcome = "refused" if fine else f"{type(error).__name__}: {text[:200]}"
    print(json.dumps([f"{kind} {name}", outcome, round(time.monotonic() - started, 2)]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits and figures of memory as Linux has them")
def test_hostile_files_are_refused_or_read(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", READ, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, (outcomes[-3:], done.stderr[-2000:])
    assert [one for one in outcomes if one[1] not in ("read", "refused")] == []
    assert len(outcomes) == sum(1 for _ in hostile.cases())
    assert not Path("/tmp/it-ran").exists()
