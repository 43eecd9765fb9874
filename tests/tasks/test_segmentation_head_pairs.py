"""Photos with masks, from folders and zips, for the head."""

import io
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from head_scenes import MASK, PHOTO
from PIL import Image

from dinodemo.io.images import load_photo
from dinodemo.tasks.segmentation_head import read_pairs


def encoded(array: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def palette(mask: np.ndarray) -> bytes:
    image = Image.fromarray(mask, "P")
    image.putpalette([value for i in range(256) for value in (i * 67 % 256, i * 31 % 256, 255 - i)])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


JPEG = encoded(PHOTO, "JPEG")
FILES = {
    "images/a.jpg": JPEG,
    "masks/a.png": palette(MASK),
    "images/b.png": encoded(PHOTO),
    "masks/b_mask.png": encoded(MASK),
    "c.jpg": JPEG,
    "c_mask.png": encoded(MASK, mode="RGB"),
    "sub/d.jpg": JPEG,
    "sub/d.png": encoded(MASK.astype(np.uint16)),
    "images/alone.jpg": JPEG,
    "masks/lonely.png": encoded(MASK),
    "small.jpg": JPEG,
    "small_mask.png": encoded(MASK[:40]),
    "void.jpg": JPEG,
    "void_mask.png": encoded(np.full_like(MASK, 255)),
    "broken.jpg": JPEG[:300],
    "broken_mask.png": encoded(MASK),
    "text.jpg": JPEG,
    "text_mask.png": b"hello",
    "cut.jpg": JPEG,
    "cut_mask.png": encoded(MASK)[:100],
    "colour.jpg": JPEG,
    "colour_mask.png": encoded(np.random.default_rng(0).integers(0, 255, PHOTO.shape, np.uint8)),
    "lossy.jpg": JPEG,
    "lossy_mask.jpg": encoded(MASK, "JPEG"),
    "twice.jpg": JPEG,
    "twice.jpeg": JPEG,
    "twice_mask.png": encoded(MASK),
    "notes.txt": b"hello",
    "inner.zip": b"PK",
    ".DS_Store": b"x",
    "__MACOSX/images/a.jpg": b"x",
}
REASONS = {
    "images/alone.jpg": "no mask",
    "masks/lonely.png": "no photo",
    "small_mask.png": "112 x 40 but small.jpg is 112 x 84",
    "void_mask.png": "every pixel is 255",
    "broken.jpg": "truncated",
    "text_mask.png": "not a picture",
    "cut_mask.png": "truncated",
    "colour_mask.png": "looks like a photo",
    "lossy_mask.jpg": "PNG",
    "twice.jpg": "share one name",
    "twice.jpeg": "share one name",
    "twice_mask.png": "share one name",
    "notes.txt": "cannot be read as annotations",
    "inner.zip": "archive",
}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def check_problems(problems, reasons):
    assert sorted(name for name, _ in problems) == sorted(reasons)
    for name, reason in problems:
        assert reasons[name] in reason, name


def test_a_folder_gives_its_good_pairs_and_names_the_bad_ones(tmp_path):
    pairs, problems = read_pairs(write_folder(tmp_path, FILES))
    assert sorted(photo.name for photo, _ in pairs) == ["a.jpg", "b.png", "c.jpg", "d.jpg"]
    assert all(np.array_equal(mask, MASK) and mask.dtype == np.uint8 for _, mask in pairs)
    check_problems(problems, REASONS)


def test_a_zip_gives_the_same_and_writes_photos_only_where_it_is_told(tmp_path):
    archive = write_zip(tmp_path / "set.zip", FILES)
    pairs, problems = read_pairs(archive, out=tmp_path / "out")
    assert len(pairs) == 4 and all(np.array_equal(mask, MASK) for _, mask in pairs)
    assert sorted(path.parent for path, _ in pairs) == [tmp_path / "out"] * 4
    assert all(load_photo(path).size == MASK.shape for path, _ in pairs)
    check_problems(problems, REASONS)
    assert [load_photo(data).size for data, _ in read_pairs(archive)[0]] == [MASK.shape] * 4


def test_what_could_do_harm_in_a_zip_is_never_read(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"x.jpg": JPEG, "x_mask.png": encoded(MASK), "../evil.jpg": JPEG})
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("/etc/evil.jpg", "..\\evil.jpg", "C:/evil.jpg", "a/../../evil.jpg"):
            archive.writestr(name, JPEG)
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    before = {p.name for p in tmp_path.iterdir()}
    pairs, problems = read_pairs(path, out=tmp_path / "out")
    assert len(pairs) == 1 and {p.name for p in tmp_path.iterdir()} == before | {"out"}
    assert len(list((tmp_path / "out").iterdir())) == 1
    ways_out = ("../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:/evil.jpg", "a/../../evil.jpg")
    check_problems(problems, dict.fromkeys(ways_out, "leads out") | {"link.jpg": "symbolic link"})


def test_zips_that_are_too_large_or_none_are_refused(tmp_path, monkeypatch):
    from dinodemo.io.zips import Limits
    from dinodemo.tasks.segmentation_head import pairs

    path = write_zip(tmp_path / "set.zip", {"x.jpg": JPEG, "x_mask.png": encoded(MASK)})
    monkeypatch.setattr(pairs, "LIMITS", Limits(total_bytes=100))
    with pytest.raises(ValueError, match=r"set\.zip holds 2 files, .* GB are read; split it"):
        read_pairs(path)
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"set\.zip is not a zip"):
        read_pairs(path)
    with pytest.raises(ValueError, match="does not exist"):
        read_pairs(tmp_path / "none")


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    files = {"x.jpg": JPEG, "x_mask.png": encoded(MASK), "y.jpg": JPEG, "y_mask.png": encoded(MASK)}
    path = write_zip(tmp_path / "set.zip", files)
    content = bytearray(path.read_bytes())
    content[content.index(b"y.jpg") + 100] ^= 255  # its checksum is wrong now
    path.write_bytes(content)
    pairs, problems = read_pairs(path)
    assert len(pairs) == 1
    check_problems(problems, {"y.jpg": "cannot be read"})


def test_nothing_usable_is_an_error_that_names_the_first_problems(tmp_path):
    write_folder(tmp_path, {"x.jpg": JPEG, "y_mask.png": encoded(MASK)})
    with pytest.raises(ValueError, match=r"no usable pair.*x\.jpg: has no mask.*y_mask\.png: has no photo"):
        read_pairs(tmp_path)


def test_black_and_white_masks_are_read_as_one_class(tmp_path):
    white = (MASK > 0).astype(np.uint8) * 255
    pairs, _ = read_pairs(write_folder(tmp_path, {"x.jpg": JPEG, "x_mask.png": encoded(white)}))
    assert np.array_equal(pairs[0][1], MASK > 0)
    white[0, 0] = 1  # now 255 means "ignore"
    pairs, _ = read_pairs(write_folder(tmp_path, {"x.jpg": JPEG, "x_mask.png": encoded(white)}))
    assert np.array_equal(pairs[0][1], white)
