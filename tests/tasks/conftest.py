"""Photos in folders, and indexes of them."""

import pytest
from photo_folders import CLASSES, SIDE, encode

from dinodemo.tasks.retrieval import ImageIndex


@pytest.fixture
def folder(tmp_path, make_picture):
    """Photos in class folders, one beside them; a text, a broken photo, a twin, and what systems leave behind."""
    root = tmp_path / "photos"
    seed = 0
    for label, count in CLASSES.items():
        (root / label).mkdir(parents=True)
        for i in range(count):
            (root / label / f"{i}.png").write_bytes(encode(make_picture(seed=seed)))
            seed += 1
    (root / "loose.png").write_bytes(encode(make_picture(100, 80, seed=seed)))
    (root / "dog" / "twin.png").write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff but not for long")
    (root / "notes.txt").write_text("no photo")
    (root / ".hidden.png").write_bytes(b"")
    return root


@pytest.fixture
def index(tmp_path, engine):
    return ImageIndex(tmp_path / "index", engine, resolution=SIDE)


@pytest.fixture
def filled(index, folder):
    index.add(folder)
    return index
