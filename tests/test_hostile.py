"""Files made to harm, through the functions that the page calls: a sentence or a result, within one gigabyte."""

import json
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from patience import SECONDS

ROOT = Path(__file__).resolve().parents[1]
KINDS = sorted({kind for kind, _, _ in hostile.cases()})
READ = """
import json, resource, sys, time, warnings
from pathlib import Path
sys.path[:0] = ["tests", "."]
warnings.simplefilter("ignore")
import cv2, fuzzing, hostile
from dinodemo.web.errors import is_expected

folder, kind = Path(sys.argv[1]), sys.argv[2]
read = fuzzing.readers(folder)[kind]
sound = [c for k, n, c in [("x", n, c) for n, c in fuzzing.pictures().items()]][:1]
(folder / "sound.png").write_bytes(fuzzing.pictures()["a.png"])
fuzzing.readers(folder)["picture"](folder / "sound.png")
try:
    (folder / "none").write_bytes(b"nothing"); read(folder / "none")
except Exception: pass
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 1_000_000_000,) * 2)
for number, (found, name, content) in enumerate(hostile.cases()):
    if found != kind: continue
    path = folder / str(number) / name
    path.parent.mkdir()
    path.write_bytes(content)
    started = time.monotonic()
    try:
        read(path); outcome = "read"
    except Exception as error:
        text = str(error)
        fine = is_expected(error) and not isinstance(error, UnicodeError) and str(folder) not in text
        outcome = "refused" if fine else f"{type(error).__name__}: {text[:200]}"
    print(json.dumps([name, outcome, round(time.monotonic() - started, 2)]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits and figures of memory as Linux has them")
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused_or_read(kind, tmp_path):
    command = [sys.executable, "-c", READ, str(tmp_path), kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (outcomes[-3:], done.stderr[-2000:])
    wrong = [one for one in outcomes if one[1] not in ("read", "refused")]
    assert not wrong
    assert len(outcomes) == sum(found == kind for found, _, _ in hostile.cases())
    assert not Path("/tmp/it-ran").exists()
