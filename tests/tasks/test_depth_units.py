"""Units of depth files: given, guessed by numbers and names, and what is never a reading."""

import re

import numpy as np
import pytest
from depth_files import METRES, PHOTO, SKY, as_npy, encoded, in_units, write

from dinodemo.tasks.depth import DepthProbe, read_pairs
from dinodemo.tasks.depth.dataset import prepare
from dinodemo.tasks.depth.readings import find_background, turned_over, without_background
from dinodemo.tasks.depth.units import Numbers, guess_unit, parse_unit


def read(folder, depth: bytes, suffix="png", names=("rgb/0.jpg", "depth/0"), **options):
    return read_pairs(write(folder, {names[0]: PHOTO, f"{names[1]}.{suffix}": depth}), **options)[0]


def said_median(pairs) -> float:
    said = " ".join(pairs.info.messages + pairs.info.warnings)
    return float(re.search(r"median ([\d.]+) m", said)[1])


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("mm", 1000),
        ("Millimetres", 1000),
        ("cm", 100),
        ("m", 1),
        ("meters", 1),
        ("kitti", 256),
        ("tum", 5000),
        ("256", 256),
        (5000, 5000),
        ("1/256", 256),
        (0.5, 0.5),
    ],
)
def test_a_unit_is_a_name_or_the_units_in_a_metre(text, units):
    assert parse_unit(text) == pytest.approx(1 / units)


@pytest.mark.parametrize("text", ["auto", "none", None])
def test_no_scale_is_asked_for(text):
    assert parse_unit(text) is None


@pytest.mark.parametrize("text", ["feet", "", "-1", 0, "nan", "inf", True, "1/0"])
def test_other_units_are_refused(text):
    with pytest.raises(ValueError, match="units in a metre"):
        parse_unit(text)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1000), ("kitti", 256), ("tum", 5000), ("cm", 100), (2000, 2000)])
def test_files_in_a_given_unit_become_metres(tmp_path, unit, factor):
    pairs = read(tmp_path, in_units(factor), unit=unit)
    np.testing.assert_allclose(pairs[0].depth, METRES, atol=0.51 / factor)
    assert pairs.info.scale == {"i": pytest.approx(1 / factor)} and pairs.info.unit == "metres"
    assert said_median(pairs) == pytest.approx(np.median(pairs[0].depth), abs=0.02)


CASES = {  # what numbers and names say -> units in a metre
    "millimetres": (in_units(1000), "png", {}, 1000),
    "centimetres": (in_units(100), "png", {}, 100),
    "TUM": (in_units(5000), "png", {}, 5000),
    "float metres": (as_npy(METRES), "npy", {}, 1),
    "float millimetres": (as_npy(METRES * 1000), "npy", {}, 1000),
    "float centimetres": (as_npy(METRES * 100), "npy", {}, 100),
    "half metres": (as_npy(METRES.astype(np.float16)), "npy", {}, 1),
    "KITTI by its folder": (in_units(256), "png", {"names": ("kitti/rgb/0.jpg", "kitti/depth/0")}, 256),
    "Virtual KITTI by its folders": (
        in_units(100, METRES * 4),
        "png",
        {"names": ("rgb/Camera_0/rgb_00000.jpg", "depth/Camera_0/depth_00000")},
        100,
    ),
    "TUM by its time stamps": (
        in_units(5000, METRES / 3),
        "png",
        {"names": ("rgb/1305031102.175304.jpg", "depth/1305031102.160407")},
        5000,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_unit_is_guessed_and_said(tmp_path, case):
    depth, suffix, options, factor = CASES[case]
    pairs = read(tmp_path, depth, suffix, **options)
    assert list(pairs.info.scale.values()) == [pytest.approx(1 / factor)]
    assert said_median(pairs) == pytest.approx(np.median(pairs[0].depth), abs=0.02)


@pytest.mark.parametrize(
    "names",
    [
        ("rgb/Camera_0/rgb_00000.jpg", "depth/Camera_0/depth_00000"),
        ("rgb/1305031102.175304.jpg", "depth/1305031102.160407"),
    ],
)
def test_names_alone_do_not_overrule_usual_numbers(tmp_path, names):
    pairs = read(tmp_path, in_units(1000), names=names)
    assert pairs.info.scale == {"i": 0.001} and "choose the unit" in pairs.info.warnings[0]


def test_a_usual_unit_names_the_others_that_are_possible():
    guess = guess_unit(Numbers("i", median=3000, high=9000))
    assert guess.unit == "mm" and "1/256 metre (KITTI): 11.72 m" in guess.message and not guess.doubtful


def test_two_units_that_are_as_plausible_need_an_answer(tmp_path):
    pairs = read(tmp_path, in_units(256, METRES * 1.6))  # 1.3 m in millimetres, 5.3 m in KITTI's unit
    assert pairs.info.scale == {"i": 0.001} and "1/256 metre (KITTI): 5.27 m" in pairs.info.warnings[0]


def test_sensors_numbers_are_five_units_of_tum_apart():
    assert guess_unit(Numbers("i", median=6000, high=11000, step=5)).unit == "tum"
    assert guess_unit(Numbers("i", median=6000, high=11000, step=10)).unit == "mm"


def test_a_laser_in_a_wide_picture_is_kitti():
    numbers = Numbers("i", median=3800, high=12000, covered=0.16, aspect=3.3)
    assert guess_unit(numbers).unit == "kitti"


def test_no_unit_at_all_is_left_out_with_a_reason(tmp_path):
    with pytest.raises(ValueError, match="say how many units are in a metre"):
        read(tmp_path, as_npy(METRES * 1e7), "npy")


def test_normalised_maps_are_suspected(tmp_path):
    far = as_npy(METRES / METRES.max())
    folder = write(tmp_path, {"rgb/0.jpg": PHOTO, "rgb/1.jpg": PHOTO, "depth/0.npy": far, "depth/1.npy": far})
    pairs, _ = read_pairs(folder)
    assert any("look normalised" in text for text in pairs.info.messages + pairs.info.warnings)


NOTHING = {
    "65535": (np.where(SKY, 65535, METRES * 1000).astype(np.uint16), "png"),
    "65535 in cm": (np.where(SKY, 65535, METRES * 100).astype(np.uint16), "png"),
    "655.35": (np.where(SKY, 655.35, METRES).astype(np.float32), "npy"),
    "1e10": (np.where(SKY, 1e10, METRES).astype(np.float32), "npy"),
    "65504": (np.where(SKY, 65504, METRES).astype(np.float16), "npy"),
    "1000 m": (np.where(SKY, 1000, METRES).astype(np.float32), "npy"),
    "inf": (np.where(SKY, np.inf, METRES).astype(np.float32), "npy"),
    "largest double": (np.where(SKY, np.finfo(np.float64).max, METRES), "npy"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_sky_is_no_reading_and_its_pixels_are_counted(tmp_path, case):
    values, suffix = NOTHING[case]
    pairs = read(tmp_path, as_npy(values) if suffix == "npy" else encoded(values), suffix)
    assert (pairs[0].depth[SKY] == 0).all()
    np.testing.assert_allclose(pairs[0].depth[~SKY], METRES[~SKY], atol=0.011)
    assert any(f"{SKY.sum()} pixels (10.0 %)" in text for text in pairs.info.messages)
    if suffix == "npy":  # the same in the core
        found = prepare([values])
        assert (found.depths[0][SKY] == 0).all() and "left out" in found.messages[0]


@pytest.mark.parametrize("value", [np.nan, 0, -1])
def test_no_reading_is_left_out_without_a_word(tmp_path, value):
    pairs = read(tmp_path, as_npy(np.where(SKY, value, METRES)), "npy")
    assert (pairs[0].depth[SKY] == 0).all() and not any("left out" in text for text in pairs.info.messages)


def test_a_map_of_sky_alone_holds_no_reading(tmp_path):
    with pytest.raises(ValueError, match="holds no reading"):
        read(tmp_path, encoded(np.full(METRES.shape, 65535, np.uint16)))


def test_a_flat_wall_at_the_far_end_is_a_reading():
    depth = np.where(SKY, 5.0, METRES.clip(0, 4))
    assert find_background([depth]) == [] and find_background([np.full((4, 5), 5.0)]) == []


def test_background_found_in_one_map_is_left_out_of_all():
    little = METRES.copy()
    little[0, 0] = 655.35
    background = find_background([np.where(SKY, 655.35, METRES), little])
    assert without_background(little, background)[1] == 1


def test_disparity_is_turned_and_has_no_unit(tmp_path):
    pairs = read(tmp_path, in_units(1, 10000 / METRES), names=("rgb/0.jpg", "disparity/0"))
    assert pairs.info.unit == pairs[0].unit == "relative" and pairs.info.inverse
    assert np.corrcoef(pairs[0].depth.ravel(), METRES.ravel())[0, 1] > 0.999
    assert any("by the names" in text for text in pairs.info.messages)
    other = read(tmp_path, in_units(1, 10000 / METRES), names=("rgb/0.jpg", "disparity/0"), inverse=False)
    assert np.corrcoef(other[0].depth.ravel(), METRES.ravel())[0, 1] < 0
    assert any("larger values mean nearer" in text for text in other.info.warnings)


def test_inverse_metres_with_a_scale_are_metres(tmp_path):
    pairs = read(tmp_path, as_npy(1 / METRES), "npy", inverse=True, scale=1.0)
    assert pairs.info.unit == "metres"
    np.testing.assert_allclose(pairs[0].depth, METRES, rtol=1e-5)


def test_eight_bits_are_enough_without_a_unit(tmp_path):
    grey = encoded((METRES * 40).astype(np.uint8))
    with pytest.raises(ValueError, match="8-bit picture"):
        read(tmp_path, grey)
    assert read(tmp_path, grey, unit="none").info.unit == "relative"


def test_the_floor_rule_is_checked():
    assert turned_over([METRES, 7 - METRES]) == (1, 2) and turned_over([np.full((9, 9), 2.0)]) == (0, 0)
    assert prepare([METRES] * 4).warnings == () and "inverse" in prepare([7 - METRES] * 4).warnings[0]


def test_maps_without_a_unit_are_not_learnt_as_metres(tmp_path, engine):
    pairs = read(tmp_path, in_units(1, 10000 / METRES), names=("rgb/0.jpg", "disparity/0"))
    with pytest.raises(ValueError, match="relative=True"):
        DepthProbe("lin1", epochs=0, resolution=112).fit(engine, pairs)


def test_inverse_depth_is_learnt_the_right_way_round(engine):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (84, 112, 3), dtype=np.uint8) for _ in range(6)]
    depth = np.linspace(6, 1, 84)[:, None] + np.zeros((84, 112))
    options = {"kind": "lin1", "epochs": 2, "resolution": 112, "bins": 32, "relative": True}
    right = DepthProbe(**options, inverse=True).fit(engine, [(photo, 1000 / depth) for photo in photos])
    wrong = DepthProbe(**options, inverse=False).fit(engine, [(photo, 1000 / depth) for photo in photos])
    found = [probe.predict(engine, photos[0], guided=False).mean(1) for probe in (right, wrong)]
    assert np.corrcoef(found[0], depth[:, 0])[0, 1] > 0.5 > np.corrcoef(found[1], depth[:, 0])[0, 1]
    assert "larger values mean nearer" in wrong.note_ and "larger values" not in right.note_


def test_a_card_counts_no_sky(engine):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(6)]
    depth = np.where(SKY, 1e10, METRES)
    probe = DepthProbe("lin1", epochs=1, resolution=112, bins=32).fit(engine, [(photo, depth) for photo in photos])
    assert probe.metrics_["rmse"] < 5 and probe.card_["range"][1] < 10 and "1e+10" in probe.note_


def test_whole_numbers_of_another_unit_are_suspected():
    assert "check that the maps are in metres" in prepare([np.rint(METRES * 100).astype(np.uint16)]).warnings[-1]
    with pytest.raises(ValueError, match="as millimetres do"):
        prepare([np.rint(METRES * 1000).astype(np.uint16)])
