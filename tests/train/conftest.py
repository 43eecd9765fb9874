"""Folders of photos and settings for runs of seconds."""

from pathlib import Path

import pytest
from PIL import Image

from dinodemo.train import FinetuneConfig

SETTINGS = {
    "global_size": 28,
    "local_size": 14,
    "eval_size": 28,
    "n_local": 1,
    "batch_size": 4,
    "prototypes": 16,
    "head_hidden": 16,
    "head_bottleneck": 8,
    "steps": 4,
    "eval_every": 2,
    "head_warmup": 0.25,
    "thaw": 0.25,
}


@pytest.fixture(scope="session")
def photos(tmp_path_factory, make_picture) -> Path:
    """Give a folder of two classes with ten small photos each; not to be changed."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(20):
        path = root / ("light" if i % 2 else "dark") / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        picture = make_picture(40, 48, seed=i)
        Image.fromarray(picture // 2 + 127 if i % 2 else picture // 2).save(path)
    return root


@pytest.fixture(scope="session")
def short(tiny_folder) -> dict:
    """Give the settings of a run of four steps of the tiny DINOv2."""
    return {**SETTINGS, "backbone": str(tiny_folder)}


@pytest.fixture(scope="session")
def settings(short):
    """Make a configuration of a short run."""

    def make(**changes) -> FinetuneConfig:
        return FinetuneConfig.from_dict({**short, **changes})

    return make
