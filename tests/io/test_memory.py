"""The largest pictures of every kind, read by a process that may take one gigabyte more than it starts with."""

import subprocess
import sys
from pathlib import Path

import pytest
from patience import SECONDS
from PIL import Image, TiffImagePlugin

from dinodemo.io.memory import most_pixels

ROOT = Path(__file__).resolve().parents[2]
READ = """
import resource, sys
import cv2
import numpy as np
from dinodemo.io.images import load_image, load_photo

def bytes_of(what):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(what))

load_image(np.zeros((64, 64, 3), np.uint8))
most = bytes_of("VmSize") + 1_000_000_000
resource.setrlimit(resource.RLIMIT_AS, (most, most))
longest = int(sys.argv[2]) or None
try:
    print(load_photo(sys.argv[1], longest=longest).size)
except ValueError as error:
    print(error)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and figures of memory as Linux has them")


def read(path: Path, longest: int = 0) -> str:
    """Read a picture in a process with little memory; returns its size, or what it was refused with."""
    command = [sys.executable, "-W", "ignore", "-c", READ, str(path), str(longest)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_float_tiff_of_12200_pixels_a_side_is_read(tmp_path):
    blank = Image.new("F", (12200, 12200))
    blank.paste(1.0, (0, 0, 6000, 6000))
    blank.save(tmp_path / "a.tif", compression="packbits")
    del blank
    assert read(tmp_path / "a.tif") == "(12200, 12200)"


def test_a_turned_photo_of_12000_pixels_a_side_is_read_and_shrunk(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12000, 11000), "teal").save(tmp_path / "a.png", exif=exif, compress_level=1)
    assert read(tmp_path / "a.png", 2048) == "(2048, 1877)"


@pytest.mark.parametrize("name", ["strip.tif", "progressive.jpg", "a.webp"])
def test_costly_kinds_have_a_lower_limit(name, tmp_path, monkeypatch):
    monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", 1 << 31)
    options = {"strip.tif": {"compression": "packbits"}, "progressive.jpg": {"progressive": True, "subsampling": 0}}
    Image.new("RGB", (64, 48)).save(tmp_path / name, **options.get(name, {}))
    with Image.open(tmp_path / name) as image, (tmp_path / name).open("rb") as stream:
        assert most_pixels(image, stream) < 120_000_000
    Image.new("RGB", (64, 48)).save(tmp_path / "plain.jpg")
    with Image.open(tmp_path / "plain.jpg") as image, (tmp_path / "plain.jpg").open("rb") as stream:
        assert most_pixels(image, stream) > 150_000_000
