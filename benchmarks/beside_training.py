"""Beside a training: how long does an attention request at 518 px take while a run trains, against an idle machine?

The run is started as the app starts it: a process of its own, with low priority and a bounded number of threads.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import PHOTO, ROOT

from dinodemo import Engine
from dinodemo.io.images import Photo, load_photo
from dinodemo.jobs.runs import Limits, Runs

OWNER = "b" * 32
RESOLUTION = 518


def answers(engine: Engine, repeats: int, first: int) -> list[float]:
    """Return the sorted seconds of requests but the first; photo number i is the example moved by i rows."""
    rgb, times = load_photo(PHOTO).rgb, []
    for i in range(first, first + repeats + 1):  # another photo each time: the cache knows none
        photo = Photo(np.roll(rgb, i, axis=0), f"photo {i}")
        start = time.perf_counter()
        engine.features(photo, resolution=RESOLUTION, attention=True)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])


def training(runs: Runs, photos: Path, backbone: str) -> str:
    """Start a run and return its id once it makes steps."""
    run_id = runs.submit(OWNER, "beside", photos, backbone, {"steps": 10_000, "eval_every": 10_000}, "auto")
    while (info := runs.info(OWNER, run_id)).step < 2:
        if info.over:
            raise RuntimeError(f"the run ended: {info.message}")
        runs.tick()
        time.sleep(0.5)
    return run_id


def steps_a_minute(runs: Runs, run_id: str, seconds: float) -> float:
    """Count a run's steps over some time, as its metrics tell them."""

    def done() -> int:
        return json.loads((runs.path(OWNER, run_id) / "metrics.jsonl").read_text().splitlines()[-1])["step"]

    before = done()
    time.sleep(seconds)
    return 60 * (done() - before) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=ROOT / "assets")
    parser.add_argument("--backbone", default="dinov2-small-offline")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    engine = Engine(args.backbone)
    idle = answers(engine, args.repeats, 0)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), Limits(free_memory=0, free_disk=0))
        run_id = training(runs, args.photos, args.backbone)
        try:
            alone = steps_a_minute(runs, run_id, 30)
            beside = answers(engine, args.repeats, 1000)
        finally:
            runs.cancel(OWNER, run_id)
            while not runs.info(OWNER, run_id).over:
                time.sleep(0.2)
    middle, last = len(idle) // 2, -1
    for name, place in (("median", middle), ("slowest", last)):
        times = idle[place], beside[place]
        print(
            f"attention at {RESOLUTION} px, {name}: idle {times[0]:.2f} s, beside a training {times[1]:.2f} s, "
            f"{times[1] / times[0]:.2f} times"
        )
    print(f"the training meanwhile: {alone:.1f} steps a minute while nobody asked")


if __name__ == "__main__":
    main()
