"""The real server in a process of its own, with a tiny random backbone, asked by plain HTTP."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from patience import SECONDS

from dinodemo.jobs.runs import Limits, Runs
from dinodemo.tasks.finetune.photo_store import PhotoStore

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Hold a running server: its address, its folder for everything it writes, its log."""

    def __init__(self, folder: Path, backbone: Path, *arguments: str, **environment: str):
        self.folder, self.log = folder, folder / "log.txt"
        names = {"TMPDIR": "tmp", "GRADIO_TEMP_DIR": "uploads", "RUNS": "runs", "XDG_CACHE_HOME": "cache"}
        folders = {name: str(folder / inside) for name, inside in names.items()}
        (folder / "tmp").mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if k not in ("PORT", "HOST", "SHARE", "PUBLIC", "AUTH", "SPACE_ID")}
        settings = {"BACKBONE": str(backbone), "DEVICE": "cpu", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "app.py", *arguments],
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
                env=kept | folders | settings | environment,
            )
        self.url = self._wait()
        self.http = httpx.Client(base_url=self.url, timeout=SECONDS)

    def _wait(self) -> str:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
            if found:
                return found[0]
            time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")

    def stop(self) -> int:
        """End the server; returns its exit status."""
        self.process.terminate()
        return self.process.wait(SECONDS)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory, tiny_folder):
    """Start servers; they end with the tests."""
    servers = []

    def start(*arguments: str, folder: Path | None = None, **environment: str) -> Server:
        folder = folder or tmp_path_factory.mktemp("server")
        servers.append(Server(folder, tiny_folder, *arguments, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def _shared() -> list[Server]:
    return []


@pytest.fixture
def server(start_server, _shared) -> Server:
    """Give a server with a laptop's settings; tests share it, and one that ends it leaves the next a new one."""
    if not _shared or _shared[-1].process.poll() is not None:
        _shared.append(start_server())
    return _shared[-1]


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path / "runs", Limits(free_disk=0))


@pytest.fixture
def store(runs):
    return PhotoStore(runs)
