"""A search as large as one page may ask for, with the real network: how much memory it takes, and how long.

It takes minutes, so it runs when it is asked for: DINODEMO_TEST_TARGETS=50 asks for all that a page may give.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from patience import SECONDS
from PIL import Image

from dinodemo import backbones

ROOT = Path(__file__).resolve().parents[2]
TARGETS = int(os.environ.get("DINODEMO_TEST_TARGETS", "0"))
RESOLUTION = 1022
KEPT = 20_000_000  # bytes of a target that a page keeps
SPARE = 400_000_000  # bytes that come and go, and what the allocator does not give back
SEARCH = """
import json, resource, sys, time
from types import SimpleNamespace
import numpy as np
from dinodemo import Engine, backbones
from dinodemo.io.images import load_photo
from dinodemo.tasks.segmentation.draw import Look, Reference
from dinodemo.tasks.segmentation.search_tab import Asked, search, size_of
from dinodemo.web.page_memory import PageMemory

paths, engine = sys.argv[2:], Engine(backbones.OFFLINE_DEFAULT, device="cpu")
services = SimpleNamespace(pool=SimpleNamespace(get=lambda name: engine), page_memory=PageMemory())
photo = load_photo(paths[0])
mask = np.zeros(photo.size, bool)
mask[300:700, 500:900] = True
wanted = [Reference(photo, mask, np.zeros_like(mask), "thing")]
resolution = int(sys.argv[1])
began = time.monotonic()
for step in search(services, wanted, [], paths, Asked("b", resolution, "kind"), Look(0.5, 0.5, "Overlay")):
    if step[2].startswith("Photo 1 of"):  # the network has run for the reference
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
results = step[0].results
print(json.dumps({
    "found": len(results), "kept": sum(map(size_of, results)), "seconds": round(time.monotonic() - began, 1),
    "first": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


@pytest.mark.skipif(not TARGETS, reason="takes minutes: set DINODEMO_TEST_TARGETS=50")
@pytest.mark.skipif(sys.platform != "linux", reason="figures of memory as Linux has them")
def test_as_many_targets_as_a_page_may_give_take_bounded_memory(tmp_path):
    if backbones.find_local(backbones.OFFLINE_DEFAULT) is None:
        pytest.skip("weights/dinov2-small-offline is missing: run `dinodemo weights fetch`")
    for number in range(TARGETS):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{number:02}.jpg", quality=90)
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, str(RESOLUTION), *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"{told}\n")  # for pytest -s
    assert told["found"] == TARGETS and told["kept"] <= TARGETS * KEPT
    assert told["peak"] - told["first"] <= TARGETS * KEPT + SPARE, told
