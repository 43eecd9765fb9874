"""Reading RGB-D pairs: what fits together comes back, everything else is named with a reason."""

import io
import json
import re
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.zips import Limits
from dinodemo.tasks.depth import files as files_module
from dinodemo.tasks.depth import read_pairs

SIZE = (6, 8)
MILLIMETRES = np.arange(600, 600 + 48, dtype=np.uint16).reshape(SIZE)


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


PHOTO = encoded(np.full((*SIZE, 3), 90, np.uint8), "JPEG")
DEPTH = encoded(MILLIMETRES)


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def pack(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_a_folder_of_photos_and_16_bit_depth_gives_metres(tmp_path):
    folder = write(tmp_path, {"rgb/b.jpg": PHOTO, "depth/b.png": DEPTH, "rgb/a.jpg": PHOTO, "depth/a.png": DEPTH})
    pairs, problems = read_pairs(folder)
    assert problems == [] and [pair.name for pair in pairs] == ["rgb/a.jpg", "rgb/b.jpg"]
    image, depth = pairs[0]
    assert image == folder / "rgb/a.jpg" and depth.dtype == np.float32
    np.testing.assert_allclose(depth, MILLIMETRES / 1000, rtol=1e-6)
    assert pairs[0].group == pairs[0].split == ""


@pytest.mark.parametrize(
    ("photo", "depth"),
    [
        ("x.jpg", "x_depth.png"),
        ("x_rgb.jpg", "x_depth.png"),
        ("x.jpg", "x.npy"),
        ("one/rgb/x.jpg", "one/depth/x.png"),
        ("color/x.jpg", "depth/x.png"),
        ("images/x_color.jpg", "depths/x-depth.png"),
    ],
)
def test_names_that_belong_together(tmp_path, photo, depth):
    data = DEPTH if depth.endswith("png") else as_npy(MILLIMETRES / 1000)
    pairs, problems = read_pairs(write(tmp_path, {photo: PHOTO, depth: data}))
    assert len(pairs) == 1 and problems == []
    np.testing.assert_allclose(pairs[0].depth, MILLIMETRES / 1000, rtol=1e-6)


def test_folders_are_groups(tmp_path):
    content = {
        f"{room}/{part}/1.png": data
        for room in ("hall", "attic")
        for part, data in (("rgb", encoded(np.zeros((*SIZE, 3), np.uint8))), ("depth", DEPTH))
    }
    pairs, _ = read_pairs(write(tmp_path, content))
    assert [pair.group for pair in pairs] == ["attic", "hall"]


def table(**extra) -> bytes:
    rows = [{"rgb": "p/1.jpg", "depth": "q/other.png", "split": "val", "scene": "kitchen"}]
    return json.dumps({"metres_per_unit": 0.002, "invalid_value": 605, "pairs": rows} | extra).encode()


def test_depth_json_says_scale_invalid_value_names_scene_and_split(tmp_path):
    content = {"set/depth.json": table(), "set/p/1.jpg": PHOTO, "set/q/other.png": DEPTH, "set/p/2.jpg": PHOTO}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert problems == [("set/p/2.jpg", "is not named in depth.json; left out")]
    assert (pairs[0].group, pairs[0].split) == ("kitchen", "val")
    expected = np.where(MILLIMETRES == 605, 0, MILLIMETRES * 0.002)
    np.testing.assert_allclose(pairs[0].depth, expected, rtol=1e-6)
    assert read_pairs(tmp_path, scale=0.01)[0][0].depth.max() == pytest.approx(6.47)


def test_what_depth_json_names_and_is_missing_is_a_problem(tmp_path):
    rows = [{"rgb": "p/1.jpg", "depth": "q/1.png"}, {"rgb": "p/2.jpg", "depth": "q/2.png"}]
    content = {"depth.json": table(pairs=rows), "p/1.jpg": PHOTO, "q/1.png": DEPTH, "p/2.jpg": PHOTO}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert len(pairs) == 1 and problems == [("q/2.png", "is named in depth.json but missing; add it")]


@pytest.mark.parametrize("text", [b"{", b"[]", table(pairs=[{"rgb": 3}]), table(metres_per_unit=-1), table(pairs=7)])
def test_a_damaged_depth_json_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"depth.json is damaged"):
        read_pairs(write(tmp_path, {"depth.json": text, "rgb/1.jpg": PHOTO, "depth/1.png": DEPTH}))


GREY_8 = encoded((MILLIMETRES // 3).astype(np.uint8))
BAD = {
    "all zero": (PHOTO, "png", encoded(np.zeros(SIZE, np.uint16)), "holds no reading"),
    "all nan": (PHOTO, "npy", as_npy(np.full(SIZE, np.nan)), "holds no reading"),
    "another aspect": (PHOTO, "png", encoded(MILLIMETRES.T.copy()), "6 x 8 but .* is 8 x 6"),
    "8 bits": (PHOTO, "png", GREY_8, "8-bit picture"),
    "8 bits in 16": (PHOTO, "png", encoded(MILLIMETRES // 10), "values up to 255 only"),
    "colour": (PHOTO, "png", encoded(np.zeros((*SIZE, 3), np.uint8)), "swapped"),
    "cut off": (PHOTO, "png", DEPTH[: len(DEPTH) // 2], "truncated or damaged|cannot be read|not a picture"),
    "no picture": (PHOTO, "png", b"hello", "not a picture"),
    "pickle": (PHOTO, "npy", as_npy(np.array([{}], dtype=object)), "no NumPy array"),
    "three dimensions": (PHOTO, "npy", as_npy(np.ones((4, 5, 6))), "expected \\(height, width\\)"),
    "another unit": (PHOTO, "npy", as_npy(MILLIMETRES * 1e5), "the unit is another"),
    "damaged photo": (PHOTO[:60], "png", DEPTH, "truncated|not a picture"),
    "no exr": (PHOTO, "exr", b"nothing", "no EXR file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pair_is_named_and_the_rest_goes_on(tmp_path, case):
    photo, suffix, depth, reason = BAD[case]
    folder = write(tmp_path, {"rgb/good.jpg": PHOTO, "depth/good.png": DEPTH})
    pairs, problems = read_pairs(write(folder, {"rgb/bad.jpg": photo, f"depth/bad.{suffix}": depth}))
    assert [pair.name for pair in pairs] == ["rgb/good.jpg"]
    assert [file for file, _ in problems] in (["rgb/bad.jpg"], [f"depth/bad.{suffix}"])
    assert re.search(reason, problems[0][1]), problems


def test_swapped_files_are_told(tmp_path):
    swapped = {"rgb/x.png": DEPTH, "depth/x.png": encoded(np.zeros((*SIZE, 3), np.uint8))}
    with pytest.raises(ValueError, match=r"swapped with depth/x\.png"):
        read_pairs(write(tmp_path, swapped))


def test_a_missing_partner_is_named(tmp_path):
    content = {"rgb/1.jpg": PHOTO, "depth/1.png": DEPTH, "rgb/2.jpg": PHOTO, "depth/3.png": DEPTH}
    _, problems = read_pairs(write(tmp_path, content))
    assert problems == [
        ("depth/3.png", "has no photo of the same name; add it"),
        ("rgb/2.jpg", "has no depth map of the same name; add it"),
    ]


def test_two_files_of_one_name_are_ambiguous(tmp_path):
    content = {"rgb/1.jpg": PHOTO, "rgb/1.png": PHOTO, "depth/1.png": DEPTH, "rgb/2.jpg": PHOTO, "depth/2.png": DEPTH}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert len(pairs) == 1 and all("share one name" in reason for _, reason in problems) and len(problems) == 3


def test_unrelated_files_are_named_and_those_of_systems_are_not(tmp_path):
    content = {
        "rgb/1.jpg": PHOTO,
        "depth/1.png": DEPTH,
        "notes.txt": b"",
        ".DS_Store": b"",
        "README.md": b"",
        "__MACOSX/rgb/1.jpg": b"",
        "more.zip": b"",
    }
    _, problems = read_pairs(write(tmp_path, content))
    assert [name for name, _ in problems] == ["more.zip", "notes.txt"]


def test_depth_of_lower_resolution_fits_a_photo_of_the_same_aspect(tmp_path):
    photo = encoded(np.zeros((30, 40, 3), np.uint8), "JPEG")
    pairs, _ = read_pairs(write(tmp_path, {"rgb/1.jpg": photo, "depth/1.png": DEPTH}))
    assert pairs[0].depth.shape == SIZE


def test_a_zip_is_read_without_unpacking(tmp_path):
    archive = pack(tmp_path / "pairs.zip", {"set/rgb/1.jpg": PHOTO, "set/depth/1.png": DEPTH})
    pairs, problems = read_pairs(archive)
    assert problems == [] and pairs[0].image == PHOTO and pairs[0].group == "set"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.zip"]


def test_photos_of_a_zip_are_written_under_names_of_our_own(tmp_path):
    archive = pack(tmp_path / "pairs.zip", {"rgb/1.jpg": PHOTO, "depth/1.png": DEPTH})
    pairs, _ = read_pairs(archive, out=tmp_path / "photos")
    assert pairs[0].image == tmp_path / "photos" / "00000.jpg" and pairs[0].image.read_bytes() == PHOTO
    assert pairs[0].name == "rgb/1.jpg"


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "c:/evil.jpg", "rgb/../../evil.jpg"])
def test_paths_that_lead_out_of_a_zip_are_not_read(tmp_path, name):
    archive = pack(tmp_path / "a.zip", {"rgb/1.jpg": PHOTO, "depth/1.png": DEPTH, name: PHOTO})
    pairs, problems = read_pairs(archive, out=tmp_path / "out")
    assert len(pairs) == 1 and problems == [(name, "its path leads out of the archive; not read")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00000.jpg"]


def test_links_and_repeated_names_in_a_zip_are_not_read(tmp_path):
    archive = pack(tmp_path / "a.zip", {"rgb/1.jpg": PHOTO, "depth/1.png": DEPTH})
    link = zipfile.ZipInfo("rgb/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr(link, "/etc/passwd")
        opened.writestr("rgb/1.jpg", PHOTO)
    pairs, problems = read_pairs(archive)
    reasons = dict(problems)
    assert len(pairs) == 1 and "symbolic link" in reasons["rgb/link.jpg"] and "twice" in reasons["rgb/1.jpg"]


def test_a_bomb_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.zip", {"rgb/1.jpg": PHOTO, "depth/1.png": DEPTH})
    monkeypatch.setattr(files_module, "LIMITS", Limits(total_bytes=100))
    with pytest.raises(ValueError, match="split it"):
        read_pairs(archive)
    monkeypatch.setattr(files_module, "LIMITS", Limits(files=1))
    for source in (archive, write(tmp_path / "folder", {"rgb/1.jpg": PHOTO, "depth/1.png": DEPTH})):
        with pytest.raises(ValueError, match="split it"):
            read_pairs(source)


def test_lists_of_files_are_matched_by_name(tmp_path):
    names = ["a/1.jpg", "a/2_rgb.jpg", "b/2_depth.png", "c/1.png", "b/4.png"]
    write(tmp_path, {name: PHOTO if name.endswith("jpg") else DEPTH for name in names})
    photos, depths = [tmp_path / name for name in names[:2]], [str(tmp_path / name) for name in names[2:]]
    pairs, problems = read_pairs(photos, depths)
    assert [pair.image for pair in pairs] == photos
    assert problems == [("4.png", "has no photo of the same name; add it")]
    with pytest.raises(ValueError, match="two lists"):
        read_pairs(tmp_path, depths)


def test_sources_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no usable pair"):
        read_pairs(tmp_path)
    with pytest.raises(ValueError, match="not a zip"):
        read_pairs(write(tmp_path, {"x.zip": b"no"}) / "x.zip")
    with pytest.raises(ValueError, match="scale must be"):
        read_pairs(tmp_path, scale=0)
