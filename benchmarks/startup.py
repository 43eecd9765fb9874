"""Start-up: from starting the process to a served page, and from there to the first map."""

import os
import re
import subprocess
import sys
import time
import urllib.request

from _common import PHOTO, ROOT

BACKBONE = "dinov2-small-offline"
PARTS = ("import numpy, PIL, cv2", "import gradio", "import torch", "from transformers import AutoModel")


def imports(statement: str) -> float:
    """Return the time that a fresh interpreter spends on an import, in seconds."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def served() -> float:
    """Start the app; returns the seconds until its page is served."""
    environment = {**os.environ, "BACKBONE": BACKBONE, "PYTHONUNBUFFERED": "1"}
    start = time.perf_counter()
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        for line in app.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                urllib.request.urlopen(found[0], timeout=60).read()
                return time.perf_counter() - start
    finally:
        app.terminate()
        app.wait()
    raise RuntimeError("the app printed no address")


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
    print(f"process start to served page:             {page:6.2f} s   (aim: under 6 s)")
    print(f"fresh process to first map at 518 px:     {feature:6.2f} s   (in the app this begins once the page is up)")


if __name__ == "__main__":
    main()
