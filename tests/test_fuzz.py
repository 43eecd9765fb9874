"""Damaged files of every kind, through the functions that the page calls: a sentence, or a result; nothing else.

The corpus is seeded: the first 170 of it run always, all with `DINODEMO_FUZZ=1200 pytest tests/test_fuzz.py`.
"""

import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import fuzzing
import numpy as np
import pytest

COUNT = int(os.environ.get("DINODEMO_FUZZ", "170"))
MOST_BYTES = 2_000_000_000  # that the whole corpus may add to the resident memory at its peak
MOST_SECONDS = 20  # of one file, on a busy machine: a bound against hangs, not a measure of speed


def resident(which: str) -> int:
    """Return this process's resident memory (VmRSS) or its peak (VmHWM), in bytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(which)), 0)


def try_to_read(case: fuzzing.Case, folder: Path) -> str:
    """Return the outcome: "read", "refused", or what is wrong with it."""
    from dinodemo.web.errors import is_expected

    path = folder / case.suffix
    path.write_bytes(case.content)
    started = time.monotonic()
    try:
        case.read(path)
        outcome = "read"
    except Exception as error:
        outcome = "refused"
        if not is_expected(error) or isinstance(error, UnicodeError):
            outcome = f"{type(error).__name__}: {str(error)[:200]!r}"
        elif str(folder) in str(error):
            outcome = f"tells a path: {str(error)[:200]}"
    seconds = time.monotonic() - started
    return f"took {seconds:.0f} s" if seconds > MOST_SECONDS else outcome


@pytest.fixture(scope="session")
def _warm():
    """Have everything imported before memory is measured."""
    import sklearn.decomposition  # noqa: F401
    import torch

    import dinodemo.tasks.depth
    import dinodemo.tasks.segmentation_head
    import dinodemo.web.painter  # noqa: F401

    torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_a_sentence_and_nothing_worse(tmp_path, _warm, capfd):
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, outcomes, wrong = resident("VmRSS"), Counter(), []
    for case in fuzzing.cases(COUNT, tmp_path):
        outcome = try_to_read(case, tmp_path)
        outcomes[outcome if outcome in ("read", "refused") else "wrong"] += 1
        if outcome not in ("read", "refused"):
            wrong.append(f"{case.name}: {outcome}")
    growth = resident("VmHWM") - before
    with capfd.disabled():
        if COUNT > 170:
            sys.stdout.write(f"\n{COUNT} files: {dict(outcomes)}, memory at most +{growth / 1e6:.0f} MB\n")
    assert not wrong, "\n".join(wrong)
    assert growth < MOST_BYTES
    assert outcomes["refused"] > COUNT / 2


def test_every_file_of_the_corpus_is_read_when_it_is_whole(tmp_path, _warm):
    read = fuzzing.readers(tmp_path)
    for kind, files in (
        ("picture", fuzzing.pictures()),
        ("mask", fuzzing.masks()),
        ("painted", fuzzing.masks()),
        ("depth", fuzzing.depth_maps()),
        ("video", fuzzing.videos(tmp_path)),
    ):
        for name, content in files.items():
            if (kind, name) in (("painted", "grey.png"), ("painted", "classes.png")):
                continue  # the painter's own masks are transparent
            (tmp_path / name).write_bytes(content)
            assert read[kind](tmp_path / name) is not None
    for name, content in (fuzzing.archives() | fuzzing.tensor_files(tmp_path)).items():
        if name != "head.safetensors":  # has no sound card: only its header is of interest
            path = tmp_path / name
            path.write_bytes(content)
            assert read[name](path) is not None


def test_damaged_model_folders_are_refused(tmp_path, tiny_folder):
    from dinodemo import Engine
    from dinodemo.web.errors import is_expected

    config = json.loads((tiny_folder / "config.json").read_text())
    for number in range(max(12, COUNT // 10)):
        rng = np.random.default_rng(number)
        folder = shutil.copytree(tiny_folder, tmp_path / str(number))
        if number % 2:
            weights = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(fuzzing.damage(weights[:4096], rng) + weights[4096:])
        else:
            key = sorted(config)[rng.integers(len(config))]
            value = (None, -1, 0, 10**12, 0.5, "x", [], {"a": 1}, [1] * 1000)[rng.integers(9)]
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
        try:
            Engine(str(folder), device="cpu").features(np.zeros((28, 28, 3), np.uint8), 28)
        except Exception as error:
            assert is_expected(error), (number, error)
        shutil.rmtree(folder)


WRONG_NUMBERS = (0, -1, 10**9, float("nan"), float("inf"), "518", None, [], True)


@pytest.mark.parametrize("number", WRONG_NUMBERS, ids=repr)
def test_numbers_out_of_range_are_refused_by_the_engine(number, engine, make_picture):
    picture = make_picture()
    for ask in (
        lambda: engine.features(picture, number),
        lambda: engine.attention_rows(picture, (0, 0), number),
        lambda: engine.layers(picture, (0,), number),
        lambda: list(engine.features_batch([picture], number)),
    ):
        with pytest.raises(ValueError, match="resolution must be"):
            ask()


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf"), "many", None, 1.5])
def test_a_batch_size_is_a_whole_number(size, engine, make_picture):
    with pytest.raises(ValueError, match="batch_size"):
        list(engine.features_batch([make_picture()], 70, batch_size=size))


@pytest.mark.parametrize("layer", [3, -4, 10**9, 1.5, None, "0"])
def test_a_layer_is_one_of_the_network(layer, engine, make_picture):
    with pytest.raises(ValueError, match="layer"):
        engine.layers(make_picture(), (layer,), 70)
