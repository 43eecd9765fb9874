"""Load: many people at once on a server of its own. Does anybody get an error, or what belongs to somebody else?

Three parts. crowd: people use all tabs for a while; each one's photos have a margin in a colour of their own, which has
to come back. fair: one person estimates 50 photos while others ask for one. leak: many pages opened, used and left.
"""

import argparse
import base64
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from _common import ROOT
from PIL import Image

sys.path[:0] = [str(ROOT / "tests" / "web"), str(ROOT / "tests")]
from visitor import Refused, Visitor  # noqa: E402

BACKBONE = "dinov2-small-offline"
RESOLUTION = 224
SIDE, MARGIN = 168, 24  # pixels of a photo, and of its coloured left margin
TOLERANCE = 16  # of 255: JPEG does not keep colours exactly
LEAST_SHARE = 0.08  # of the margin that has its colour: lines and points may be drawn over the rest
POLITE = re.compile("queue", re.IGNORECASE)
FOREIGN = "not one's own result"


class Server:
    """Hold a server process with folders of its own."""

    def __init__(self, folder: Path):
        log = folder / "log.txt"
        (folder / "tmp").mkdir()
        own = {
            "TMPDIR": f"{folder}/tmp",
            "GRADIO_TEMP_DIR": f"{folder}/uploads",
            "RUNS": f"{folder}/runs",
            "BACKBONE": BACKBONE,
            "PYTHONUNBUFFERED": "1",
            "PORT": "",
        }
        environment = {k: v for k, v in {**os.environ, **own}.items() if v}
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=stream, stderr=stream
            )
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.2)
        self.url, self.log = found[0], log

    def resident(self) -> float:
        """Return the resident memory in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def unexpected(self) -> int:
        """Count the errors that the server's log calls unexpected."""
        return self.log.read_text().count('"message": "unexpected ')


class Person:
    """Use the page, and check that what comes back carries one's own colour."""

    def __init__(self, url: str, number: int):
        self.page = Visitor(url, httpx.Client(base_url=url, timeout=300, limits=httpx.Limits(max_connections=4)))
        steps = np.array((24, 88, 152, 216))
        self.colour = np.array([steps[number % 4], steps[number // 4 % 4], steps[number // 16 % 4]])
        self.rng = np.random.default_rng(number)
        for name, value in {"resolution": RESOLUTION, "opacity": 0, "seg-opacity": 0, "compare-count": 5}.items():
            self.page.set(name, value)

    def photo(self) -> dict:
        """Upload a photo that nobody had before."""
        pixels = self.rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        rgb = np.array(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        rgb[:, :MARGIN] = self.colour
        stream = io.BytesIO()
        Image.fromarray(rgb).save(stream, "PNG")
        return self.page.upload("photo.png", stream.getvalue())

    def is_mine(self, value) -> bool:
        """Fetch a picture that the page shows, and compare its margin."""
        with Image.open(io.BytesIO(self.page.http.get(value["url"]).raise_for_status().content)) as image:
            rgb = np.asarray(image.convert("RGB"))
        height, width = rgb.shape[:2]
        strip = rgb[height // 4 : 3 * height // 4, width // 100 : max(3, width // 30)]
        near = np.abs(strip.astype(int) - self.colour).max(axis=-1) <= TOLERANCE
        return bool(near.mean() > LEAST_SHARE)

    def attention(self) -> bool:
        self.page.set("attention-photo", self.photo())
        self.page.fire("attention-photo", "upload")
        return self.is_mine(self.page.get("attention-overlay"))

    def head(self) -> bool:
        """Change a control of a photo that is there."""
        if not self.page.get("attention-overlay"):
            return self.attention()
        self.page.set("head", str(self.rng.integers(1, 7)))
        self.page.fire("head", "change")
        return self.is_mine(self.page.get("attention-overlay"))

    def pca(self) -> bool:
        self.page.set("pca-photos", [self.photo()])
        self.page.fire("pca-photos", "change")
        return self.is_mine(self.page.get("pca-pictures")[0]["image"])

    def depth(self) -> bool:
        self.page.set("depth-photo", self.photo())
        self.page.fire("depth-photo", "upload")
        return self.is_mine(self.page.get("depth-slider")[0])

    def compare(self) -> bool:
        for place, event in (("compare-first", "upload"), ("compare-second", "upload")):
            self.page.set(place, self.photo())
            self.page.fire(place, event)
        return self.is_mine(self.page.get("compare-lines"))

    def segmentation(self) -> bool:
        self.page.set("seg-reference", self.photo())
        self.page.fire("seg-reference", "upload")
        rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
        rgba[40:120, 60:140] = (255, 32, 32, 255)
        stream = io.BytesIO()
        Image.fromarray(rgba).save(stream, "PNG")
        self.page.set("seg-painter", {"mask": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()})
        self.page.set("seg-targets", [self.photo()])
        self.page.fire("seg-find", "click")
        return self.is_mine(self.page.get("seg-picture"))

    def retrieval(self) -> bool:
        """Make an index of three photos and ask it; the hits are one's own."""
        name = f"index {self.rng.integers(10**9)}"
        files = [{"path": self.photo()["path"], "name": f"{i}.png"} for i in range(3)]
        self.page.set("build-picker", {"files": files})
        self.page.set("build-name", name)
        self.page.fire("build-add", "click")
        self.page.set("index", f"mine:{name}")
        self.page.set("retrieval-photo", self.photo())
        self.page.fire("retrieval-photo", "upload")
        hits = self.page.get("retrieval-hits")
        self.page.set("build-sure", True)
        self.page.fire("build-delete", "click")
        return len(hits) == 3 and all(self.is_mine(hit["image"]) for hit in hits)


ACTIONS: dict[str, tuple[Callable[[Person], bool], int]] = {
    "attention": (Person.attention, 4),
    "a control": (Person.head, 4),
    "pca": (Person.pca, 3),
    "depth": (Person.depth, 3),
    "compare": (Person.compare, 2),
    "segmentation": (Person.segmentation, 2),
    "retrieval": (Person.retrieval, 1),
}


@dataclass
class Tally:
    """Gather what happened, from many threads."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def do(self, name: str, action: Callable[[], bool]) -> None:
        """Run an action, timed; note an error, or a result of somebody else."""
        started, wrong = time.perf_counter(), None
        try:
            if not action():
                wrong = f"{FOREIGN} in {name}"
        except Refused as told:
            wrong = "polite: the queue is full" if POLITE.search(str(told)) else f"refused: {str(told)[:120]}"
        except Exception as error:  # whatever it is, it is counted and shown
            answer = getattr(error, "response", None)
            full = answer is not None and answer.status_code == 503 and POLITE.search(answer.text)
            wrong = "polite: the queue is full" if full else f"{type(error).__name__}: {str(error)[:120]}"
        with self.lock:
            self.seconds[name].append(time.perf_counter() - started)
            if wrong:
                self.wrong[wrong] += 1

    def show(self) -> None:
        """Print the times and what went wrong."""
        for name, times in self.seconds.items():
            middle, late = np.percentile(times, (50, 95))
            print(f"  {name:<14} {len(times):5d} times   p50 {middle:6.2f} s   p95 {late:6.2f} s")
        total = sum(map(len, self.seconds.values()))
        foreign = sum(count for what, count in self.wrong.items() if what.startswith(FOREIGN))
        print(
            f"  {total} actions, {foreign} with another result than one's own, "
            f"{sum(self.wrong.values()) - foreign} errors"
        )
        for what, count in self.wrong.most_common():
            print(f"    {count} x {what}")


def in_threads(functions: list[Callable[[], None]]) -> None:
    """Run functions at once and wait for them."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def crowd(server: Server, people: int, seconds: float) -> None:
    """Let people use all tabs at once."""
    tally, end, before = Tally(), time.monotonic() + seconds, server.resident()
    names, weights = list(ACTIONS), [weight for _, weight in ACTIONS.values()]

    def live(number: int) -> None:
        person, choice = Person(server.url, number), random.Random(number)
        while time.monotonic() < end:
            (name,) = choice.choices(names, weights)
            tally.do(name, partial(ACTIONS[name][0], person))

    in_threads([lambda number=number: live(number) for number in range(people)])
    print(f"crowd: {people} people, {seconds:.0f} s")
    tally.show()
    print(
        f"  resident memory {before:.0f} MB before, {server.resident():.0f} MB after; "
        f"{server.unexpected()} unexpected errors in the server's log"
    )


def fair(server: Server, photos: int, people: int) -> None:
    """Time single photos alone, and while somebody estimates the depth of many."""
    askers = [Person(server.url, number) for number in range(people)]
    alone, beside, over = Tally(), Tally(), threading.Event()
    in_threads([lambda p=p: [alone.do("attention", p.attention) for _ in range(5)] for p in askers])
    busy = Person(server.url, 63)
    busy.page.set("depth-files", [busy.photo() for _ in range(photos)])

    def work() -> None:
        try:
            beside.do(f"{photos} photos", lambda: busy.page.fire("depth-all", "click") or True)
        finally:
            over.set()

    def ask(person: Person) -> None:
        while not over.is_set():
            beside.do("attention", person.attention)

    in_threads([work, *(lambda p=p: ask(p) for p in askers)])
    print(f"fair: {people} people ask for one photo at a time, alone")
    alone.show()
    print(f"fair: the same while one person has {photos} photos estimated")
    beside.show()


def leak(server: Server, requests: int) -> None:
    """Open a page, use it once, leave; again and again."""
    tally, memory = Tally(), []
    for number in range(requests):
        person = Person(server.url, number % 64)
        tally.do("attention", person.attention)
        person.page.http.close()
        if number % max(1, requests // 10) == 0 or number == requests - 1:
            memory.append((number + 1, server.resident()))
    print(f"leak: {requests} pages opened, used once and left")
    tally.show()
    print("  resident MB: " + ", ".join(f"{size:.0f} after {count}" for count, size in memory))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--photos", type=int, default=50, help="of the long job")
    parser.add_argument("--requests", type=int, default=1000, help="pages opened and left")
    parser.add_argument("--parts", nargs="+", choices=("crowd", "fair", "leak"), default=["crowd", "fair", "leak"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dinodemo-load-") as folder:
        server = Server(Path(folder))
        try:
            first = Person(server.url, 0)
            for action, _ in ACTIONS.values():  # everything is imported and the network is warm
                if not action(first):
                    raise RuntimeError(f"{action.__name__} did not give back the photo's colour")
            run = {
                "crowd": lambda: crowd(server, args.people, args.seconds),
                "fair": lambda: fair(server, args.photos, max(2, args.people // 10)),
                "leak": lambda: leak(server, args.requests),
            }
            for part in args.parts:
                run[part]()
        finally:
            server.process.terminate()
            server.process.wait(30)


if __name__ == "__main__":
    main()
