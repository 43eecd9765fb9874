"""Which photo belongs to which depth map: the layouts of public sets, time stamps, lists."""

import numpy as np
import pytest
from depth_files import COLOUR_PNG, METRES, PHOTO, as_npy, in_units, write

from dinodemo.tasks.depth import read_pairs
from dinodemo.tasks.depth.pairing import seconds_of

DEPTH = in_units(1000)
LAYOUTS = {
    "NYU of BTS": ("a/rgb_00045.jpg", "a/sync_depth_00045.png"),
    "NYU of DenseDepth": ("a/00000_colors.png", "a/00000_depth.png"),
    "words before numbers": ("a/rgb_0001.png", "a/depth_0001.png"),
    "Virtual KITTI 2": ("S1/clone/frames/rgb/Camera_0/rgb_00000.jpg", "S1/clone/frames/depth/Camera_0/depth_00000.png"),
    "a folder a frame": ("frame1/rgb.jpg", "frame1/depth.png"),
    "TUM": ("rgb/1305031102.175304.png", "depth/1305031102.160407.png"),
    "7-Scenes": ("seq-01/frame-000000.color.png", "seq-01/frame-000000.depth.png"),
    "Replica": ("results/frame000012.jpg", "results/depth000012.png"),
    "numbered folders": ("rgb_1/0.jpg", "depth_1/0.png"),
    "zeros before numbers": ("color/7.jpg", "depth/00007.png"),
    "KITTI selection": ("image/d_image_0005_image_02.png", "groundtruth_depth/d_groundtruth_depth_0005_image_02.png"),
    "KITTI": ("d1/image_02/data/0000000005.png", "d1/proj_depth/groundtruth/image_02/0000000005.png"),
    "Redwood": ("rgb/0000012-000000367033.jpg", "depth/0000012-000000400400.png"),
    "DIODE": ("s/00019_indoors_000.png", "s/00019_indoors_000_depth.npy"),
    "TartanAir": ("image_left/000000_left.png", "depth_left/000000_left_depth.npy"),
    "another ending": ("kitchen_north.jpg", "kitchen_north_d.npy"),
    "a folder of another name": ("left/0001.png", "lidar/0001.npy"),
    "nanoseconds": ("cam/1403636579763555584.png", "depth/1403636579763555584.png"),
    "Middlebury": ("Adirondack/im0.png", "Adirondack/disp0.npy"),
    "a word for the unit": ("img/frame.0000.color.jpg", "geo/frame.0000.depth_meters.npy"),
    "one name": ("x.jpg", "x.png"),
    "a set called depth": ("nyu_depth_v2/train/x.jpg", "nyu_depth_v2/train/x.png"),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_of_public_sets_are_paired(tmp_path, case):
    photo, depth = LAYOUTS[case]
    content = {
        photo: COLOUR_PNG if photo.endswith("png") else PHOTO,
        depth: DEPTH if depth.endswith("png") else as_npy(METRES),
    }
    pairs, problems = read_pairs(write(tmp_path, content), unit=None)
    assert problems == [] and [(pair.name, pair.depth_name) for pair in pairs] == [(photo, depth)]
    assert pairs[0].by


def test_masks_beside_depth_are_no_depth(tmp_path):
    content = {"a.png": COLOUR_PNG, "a_depth.npy": as_npy(METRES), "a_depth_mask.npy": as_npy(METRES > 2)}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert [pair.depth_name for pair in pairs] == ["a_depth.npy"] and "mask" in problems[0][1]


def test_time_stamps_pair_the_nearest_each_once(tmp_path):
    times = {"rgb": (100.000, 100.033, 100.066, 200.0), "depth": (100.010, 100.043, 100.070, 100.09)}
    content = {f"rgb/{t:.6f}.png": COLOUR_PNG for t in times["rgb"]}
    content |= {f"depth/{t:.6f}.png": DEPTH for t in times["depth"]}
    pairs, problems = read_pairs(write(tmp_path, content), unit="tum")
    found = {pair.name[4:11]: pair.depth_name[6:13] for pair in pairs}
    assert found == {"100.000": "100.010", "100.033": "100.043", "100.066": "100.070"}
    assert {name for name, _ in problems} == {"rgb/200.000000.png", "depth/100.090000.png"}
    assert "10 ms apart" in pairs[0].by


@pytest.mark.parametrize(
    ("stem", "seconds"),
    [
        ("1305031102.175304", 1305031102.175304),
        ("1403636579763555584", 1403636579.763555584),
        ("0012", None),
        ("kitchen", None),
        ("rgb_1305031102175", 1305031102.175),
        ("2", None),
    ],
)
def test_time_stamps_are_read(stem, seconds):
    assert seconds_of(stem) == (None if seconds is None else pytest.approx(seconds, abs=1e-5))


LISTS = {
    "csv without a head": ("train.csv", "data/s/1.jpg,data/s/d1.png\ndata/s/2.jpg,data/s/d2.png\n"),
    "csv with a head": ("pairs.csv", "rgb,depth,scene\ns/1.jpg,s/d1.png,hall\ns/2.jpg,s/d2.png,hall\n"),
    "depth first": ("pairs.csv", "depth;image\ns/d1.png;s/1.jpg\ns/d2.png;s/2.jpg\n"),
    "TUM's associations": ("associations.txt", "1.0 s/1.jpg 1.1 s/d1.png\n# end\n2.0 s/2.jpg 2.1 s/d2.png\n"),
    "a split of BTS": ("train.txt", "/s/1.jpg /s/d1.png 518.8579\n/s/2.jpg /s/d2.png 518.8579\n"),
}


@pytest.mark.parametrize("case", LISTS)
def test_rows_of_a_list_are_pairs(tmp_path, case):
    name, text = LISTS[case]
    content = {"s/1.jpg": PHOTO, "s/2.jpg": PHOTO, "s/d1.png": DEPTH, "s/d2.png": DEPTH, "s/3.jpg": PHOTO, name: text}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert [(pair.name, pair.depth_name) for pair in pairs] == [("s/1.jpg", "s/d1.png"), ("s/2.jpg", "s/d2.png")]
    assert pairs[0].by == f"row of {name}" and problems == [("s/3.jpg", "is not named in the list; left out")]


def test_a_list_of_one_kind_of_file_is_passed_over(tmp_path):
    content = {"rgb/1.png": COLOUR_PNG, "depth/1.png": DEPTH, "rgb.txt": "1.0 rgb/1.png\n", "poses.txt": "0 1 2\n"}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert len(pairs) == 1 and {name for name, _ in problems} == {"rgb.txt", "poses.txt"}


def test_what_a_list_names_and_is_missing_is_said(tmp_path):
    content = {"1.jpg": PHOTO, "1.png": DEPTH, "pairs.csv": "1.jpg,1.png\n2.jpg,2.png\n1.jpg,9.png\n"}
    pairs, problems = read_pairs(write(tmp_path, content))
    assert len(pairs) == 1 and ("pairs.csv: 9.png", "is named in the list but missing; add it") in problems


def test_depth_of_other_scenes_is_not_taken(tmp_path):
    content = {"hall/rgb/1.jpg": PHOTO, "attic/depth/1.png": DEPTH, "hall/rgb/2.jpg": PHOTO, "hall/depth/2.png": DEPTH}
    pairs, _ = read_pairs(write(tmp_path, content))
    assert ("hall/rgb/2.jpg", "hall/depth/2.png") in [(pair.name, pair.depth_name) for pair in pairs]
    assert np.isfinite(pairs[0].depth).all()


@pytest.mark.parametrize(("left", "right"), [("left", "right"), ("image_2", "image_3"), ("s/image_02", "s/image_03")])
@pytest.mark.parametrize("depth", ["disparity", "depth"])
def test_the_left_picture_of_a_stereo_pair_is_taken(tmp_path, left, right, depth):
    content = {f"{side}/{i}.png": COLOUR_PNG for side in (left, right) for i in range(2)}
    folder = f"s/{depth}" if left.startswith("s/") else depth
    pairs, problems = read_pairs(write(tmp_path, content | {f"{folder}/{i}.png": DEPTH for i in range(2)}))
    assert [pair.name for pair in pairs] == [f"{left}/{i}.png" for i in range(2)]
    assert problems == [
        (f"{right}/{i}.png", "is the right picture of a stereo pair; the left one was taken") for i in range(2)
    ]


def test_both_pictures_of_a_stereo_pair_are_taken_where_both_have_depth(tmp_path):
    content = {f"{side}/0.png": COLOUR_PNG for side in ("left", "right")}
    pairs, problems = read_pairs(write(tmp_path, content | {f"depth_{s}/0.png": DEPTH for s in ("left", "right")}))
    assert [(p.name, p.depth_name) for p in pairs] == [
        ("left/0.png", "depth_left/0.png"),
        ("right/0.png", "depth_right/0.png"),
    ]
    assert problems == []
