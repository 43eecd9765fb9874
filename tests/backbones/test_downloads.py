"""Downloads that several ask for, cancel, or leave; and backbones that are never replaced."""

import itertools
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from patience import SECONDS

from dinodemo import cli
from dinodemo.backbones import (
    DEFAULT,
    OFFLINE_DEFAULT,
    DownloadCancelled,
    DownloadPending,
    Downloads,
    HubRefused,
    HubUnreachable,
    fetch,
    find_local,
    resolve,
)
from dinodemo.backbones.hub import cached_folder
from dinodemo.engine.pool import EnginePool

from .hub_samples import FILES, SMALL

# nobody gets another network than the one that was named


@pytest.mark.parametrize("name", [DEFAULT, SMALL, "dinov2-base", "dinov3-vits16", "someone/some-vit"])
def test_a_named_backbone_is_never_replaced(name, hub, offline_default, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable):
        resolve(name)
    assert resolve()[0].name == OFFLINE_DEFAULT  # what nobody named may be


def test_a_command_that_names_a_backbone_writes_nothing_with_another(hub, offline_default, tmp_path, monkeypatch):

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    photo = Path(__file__).resolve().parents[2] / "assets" / "coffee_cup.jpg"
    status = cli.main(["attention", str(photo), "--out", str(tmp_path / "out"), "--backbone", DEFAULT])
    assert status == 1 and not list((tmp_path / "out").glob("*"))


def test_the_offline_default_is_built_when_it_is_missing(hub, built, weights_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve()[1] == weights_folder / OFFLINE_DEFAULT
    assert built == [OFFLINE_DEFAULT]


# many who ask


def test_progress_says_bytes_rate_and_the_time_that_is_left(small):
    small.faults.rate = 1_000_000
    seen = []
    fetch(DEFAULT, seen.append)
    words = [progress.sentence(DEFAULT) for progress in seen]
    assert any(re.fullmatch(r"dinov2-small: 1 of 2 MB, [01]\.\d MB/s, \d s left", text) for text in words), words
    assert all(a.done <= b.done for a, b in itertools.pairwise(seen))


def test_several_who_ask_share_one_download(small):
    small.faults.rate = 2_000_000
    downloads = Downloads()
    jobs = {id(downloads.start(name)) for name in (DEFAULT, SMALL, DEFAULT)}
    assert len(jobs) == 1
    downloads.start(DEFAULT).wait()
    assert small.downloads("model.safetensors") == 1


def test_a_cancelled_download_ends_and_leaves_nothing(small):
    small.faults.rate = 100_000
    downloads = Downloads()
    job = downloads.start(DEFAULT)
    deadline = time.monotonic() + SECONDS
    while not job.progress.done and time.monotonic() < deadline:
        time.sleep(0.05)
    assert downloads.leave(DEFAULT)
    with pytest.raises(DownloadCancelled):
        job.wait(SECONDS)
    assert find_local(DEFAULT) is None and not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_one_who_leaves_does_not_stop_the_others(small):
    small.faults.rate = 2_000_000
    downloads = Downloads()
    with downloads.waiting(DEFAULT) as job, downloads.waiting(DEFAULT):
        assert not downloads.leave(DEFAULT)
        assert job.wait(SECONDS)


def test_a_server_does_not_wait_for_a_download_in_its_queue(small):
    small.faults.rate = 1_000_000
    pool = EnginePool("cpu", "float32", downloads=Downloads())
    with pytest.raises(DownloadPending, match="ask again"):
        pool.get(DEFAULT)
    pool.downloads.start(DEFAULT).wait(SECONDS)
    with pytest.raises(ValueError, match=r"cannot be (loaded|used)|lack"):  # it is here
        pool.get(DEFAULT)


def test_who_asks_again_after_a_failure_gets_its_reason(small):
    small.faults.info = 503
    pool = EnginePool("cpu", "float32", downloads=Downloads())
    with pytest.raises(DownloadPending):
        pool.get(DEFAULT)
    pool.downloads._jobs[DEFAULT]._ended.wait(SECONDS)
    with pytest.raises(HubRefused, match="503"):
        pool.get(DEFAULT)


def test_a_download_ends_with_the_process_that_asked_for_it(small, tmp_path):
    small.faults.rate = 50_000
    code = f"from dinodemo.backbones import fetch; fetch({DEFAULT!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HF_ENDPOINT": small.url, "HF_HUB_CACHE": constants.HF_HUB_CACHE},
    )
    asked = threading.Event()
    deadline = time.monotonic() + SECONDS
    while small.downloads("model.safetensors") == 0 and time.monotonic() < deadline:
        asked.wait(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + SECONDS
    while list(Path("/proc").glob("[0-9]*")) and _transfers() and time.monotonic() < deadline:
        asked.wait(0.1)
    assert not _transfers()


def _transfers() -> list[str]:
    """List this test's download processes, where /proc tells them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            line = (path.parent / "cmdline").read_bytes()
            if b"dinodemo.backbones.transfer" in line and constants.HF_HUB_CACHE.encode() in path.read_bytes():
                found.append(line.decode())
        except OSError:
            continue
    return found


def test_cached_folder_takes_no_name_that_is_none(hub):
    assert cached_folder("no/such/thing") is None and cached_folder("..") is None


def test_a_depth_model_outside_of_the_table_is_downloaded_once_and_found_again(hub, monkeypatch):
    from dinodemo.tasks.depth import dpt

    name = next(iter(dpt.DPT_MODELS))
    hub.put(name, FILES)
    folder = dpt._fetch(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert dpt._fetch(name) == find_local(name) == folder
    assert hub.downloads("model.safetensors") == 1
