"""Start-up: from starting the process to a served page, and from there to the first map.

The last figures are those of a Space: its environment variables, 2 cores, 16 GB of address space and a home that
cannot be written. They are asked over HTTP, as a browser would: the page, then a photo at 518 px and its map.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _common import PHOTO, ROOT

sys.path[:0] = [str(ROOT / "tests" / "web"), str(ROOT / "tests")]
from visitor import Visitor  # noqa: E402

BACKBONE = "dinov2-small-offline"
SPACE_BYTES = 16 * 2**30
PARTS = ("import numpy, PIL, cv2", "import gradio", "import torch", "from transformers import AutoModel")


def imports(statement: str) -> float:
    """Return the time that a fresh interpreter spends on an import, in seconds."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@contextmanager
def app(prepare: Callable[[], None] | None = None, **environment: str) -> Iterator[str]:
    """Start the app and give its address once its page is served."""
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
        env={**os.environ, "BACKBONE": BACKBONE, "PYTHONUNBUFFERED": "1", **environment},
    )
    try:
        for line in process.stdout:
            if found := re.search(r"http://(127|0)\.0\.0\.[01]:(\d+)", line):
                url = f"http://127.0.0.1:{found[2]}"
                urllib.request.urlopen(url, timeout=60).read()
                yield url
                return
        raise RuntimeError("the app printed no address")
    finally:
        process.terminate()
        process.wait()


def served() -> float:
    """Start the app; returns the seconds until its page is served."""
    start = time.perf_counter()
    with app():
        return time.perf_counter() - start


def space() -> tuple[float, float]:
    """Start the app as a Space does; returns the seconds until its page, and until the first map, both from there."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o555)
        as_a_space = {
            "SPACE_ID": "anna/dinodemo",
            "SYSTEM": "spaces",
            "GRADIO_SERVER_NAME": "0.0.0.0",
            "HOME": home,
            "XDG_CACHE_HOME": "",
        }
        start = time.perf_counter()
        with app(limit_memory, **as_a_space) as url:
            page, visitor = time.perf_counter() - start, Visitor(url)
            visitor.set("attention-photo", visitor.upload(PHOTO.name, PHOTO.read_bytes()))
            visitor.fire("attention-photo", "upload")
            if not visitor.get("attention-overlay"):
                raise RuntimeError("the page shows no map")
            return page, time.perf_counter() - start


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (SPACE_BYTES, SPACE_BYTES))


def first_map() -> float:
    """Return the time of a fresh process from import to one attention map at 518 px: what the warm-up hides."""
    code = (
        "import time; t = time.perf_counter(); from dinodemo import Engine;"
        f"Engine({BACKBONE!r}).features({str(PHOTO)!r}, 518, attention=True); print(time.perf_counter() - t)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    print("what a fresh interpreter spends on imports:")
    for statement in PARTS:
        print(f"  {imports(statement):6.2f} s  {statement}")
    page, feature = served(), first_map()
    space_page, space_map = space()
    print(f"process start to served page:             {page:6.2f} s   (aim: under 6 s)")
    print(f"fresh process to first map at 518 px:     {feature:6.2f} s   (in the app this begins once the page is up)")
    print(f"as a Space, process start to served page: {space_page:6.2f} s")
    print(f"as a Space, process start to first map:   {space_map:6.2f} s")


if __name__ == "__main__":
    main()
