"""What is taken for granted of depth files without a word from the person: unit and direction, and when nothing is."""

import io

import numpy as np
import pytest
from depth_files import encoded
from PIL import Image

from dinodemo.cli import main
from dinodemo.tasks.depth import DepthProbe, read_pairs
from dinodemo.tasks.depth import probe as probe_module
from dinodemo.tasks.depth.readings import nearer_by_floor, tilt
from dinodemo.tasks.depth.units import Numbers, guess_unit

Y, X = np.mgrid[:120, :160]
FLOOR = (6 - 5 * Y / 120).astype(np.float32)  # 1 to 6 m, the bottom nearer
CEILING = (1 + Y / 30 + X / 160).astype(np.float32)  # the same range, the bottom farther
HOLES = np.random.default_rng(0).random(FLOOR.shape) < 0.05
SPARSE = np.random.default_rng(1).random(FLOOR.shape) < 0.9
NO_SKY = np.zeros(FLOOR.shape, bool)
UNITS = {"mm": 1000, "kitti": 256, "tum": 5000, "cm": 100}


def whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.uint16)


def folder_of(folder, maps, suffix="png", depth="depth"):
    for name in ("rgb", depth):
        (folder / name).mkdir(parents=True)
    for i, values in enumerate(maps):
        photo = np.random.default_rng(i).integers(0, 255, (*values.shape, 3), dtype=np.uint8)
        (folder / "rgb" / f"{i}.jpg").write_bytes(encoded(photo, "JPEG"))
        stream = io.BytesIO()
        if suffix == "npy":
            np.save(stream, values)
        else:
            Image.fromarray(values).save(stream, "TIFF" if suffix == "tif" else "PNG")
        (folder / depth / f"{i}.{suffix}").write_bytes(stream.getvalue())
    return folder


def read(folder, maps, suffix="png", depth="depth", **options):
    return read_pairs(folder_of(folder, maps, suffix, depth), **options)[0]


def correlation(found: np.ndarray, truth: np.ndarray) -> float:
    seen = found > 0
    return float(np.corrcoef(found[seen], truth[seen])[0, 1])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("missing", [NO_SKY, Y < 30, HOLES], ids=["dense", "sky without readings", "holes"])
@pytest.mark.parametrize("unit", ["mm", "tum", "cm"])
def test_metres_come_out_whatever_the_unit(tmp_path, unit, missing, count):
    pairs = read(tmp_path, [np.where(missing, 0, whole(FLOOR * UNITS[unit])).astype(np.uint16)] * count)
    np.testing.assert_allclose(pairs[0].depth[~missing], FLOOR[~missing], atol=0.006)
    assert (unit == "mm") == (not pairs.info.warnings)  # an unusual unit is a guess, and says so
    assert not pairs.info.warnings or pairs.info.warnings[0].startswith("The unit is a guess.")


@pytest.mark.parametrize(
    ("depth", "missing"),
    [(FLOOR, NO_SKY), (FLOOR, Y < 30), (FLOOR, SPARSE), (CEILING, NO_SKY), (CEILING, SPARSE)],
    ids=["dense", "sky without readings", "sparse", "ceiling", "sparse ceiling"],
)
def test_256_units_in_a_metre_are_found_and_the_others_offered(tmp_path, depth, missing):
    pairs = read(tmp_path, [np.where(missing, 0, whole(depth * 256)).astype(np.uint16)])
    np.testing.assert_allclose(pairs[0].depth[~missing], depth[~missing], atol=0.003)
    warning = pairs.info.warnings[0]
    assert warning.startswith("The unit is a guess.") and "1/256 metre (KITTI)" in warning
    assert "choose the unit" in warning and "centimetres" in warning


@pytest.mark.parametrize("missing", [NO_SKY, SPARSE], ids=["dense", "sparse"])
def test_rooms_in_millimetres_are_not_taken_for_another_unit(tmp_path, missing):
    pairs = read(tmp_path, [np.where(missing, 0, whole(FLOOR * 1000)).astype(np.uint16)] * 3)
    assert pairs.info.scale == {"i": 0.001}


@pytest.mark.parametrize(
    "numbers",
    [
        Numbers("i", median=700, high=1100, deep=2.7, holes=0.0),  # things on a table, rendered
        Numbers("i", median=893, high=1380, deep=3.3, holes=0.04),  # the same from a sensor, which leaves holes
        Numbers("i", median=620, high=650, deep=1.1, holes=0.0),  # a wall close by
    ],
    ids=["table", "sensor", "wall"],
)
def test_close_views_in_millimetres_stay_and_are_called_a_guess(numbers):
    guess = guess_unit(numbers)
    assert guess.unit == "mm" and guess.doubtful and "1/256 metre (KITTI)" in guess.message


def test_wide_pictures_with_sky_at_65535_are_centimetres(tmp_path):
    y, x = np.mgrid[:94, :310]
    street = np.clip(1.65 * 90 / np.maximum(y - 35, 2), 2, 80) + x / 300
    pairs = read(tmp_path, [np.where(y < 25, 65535, whole(street * 100)).astype(np.uint16)] * 3)
    assert pairs.info.scale == {"i": 0.01} and pairs.info.warnings[0].startswith("The unit is a guess.")
    other = read(tmp_path / "laser", [np.where((x + 7 * y) % 11 > 0, 0, whole(street * 256)).astype(np.uint16)] * 3)
    assert other.info.scale == {"i": 1 / 256}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floating_point_metres_stay_metres_without_a_warning(tmp_path, kind):
    pairs = read(tmp_path, [FLOOR.astype(kind)] * 2, "npy")
    np.testing.assert_allclose(pairs[0].depth, FLOOR, rtol=1e-3)
    assert pairs.info.scale == {"f": 1.0} and not pairs.info.warnings


@pytest.mark.parametrize("top", [1.0, 65535.0])
def test_normalised_maps_have_no_unit_unless_one_is_given(tmp_path, top):
    share = (FLOOR - FLOOR.min()) / np.ptp(FLOOR)
    maps, suffix = ([share], "npy") if top == 1 else ([whole(share * top)], "png")
    pairs = read(tmp_path / "two", maps * 2, suffix)
    assert pairs.info.unit == "relative" and "look normalised" in pairs.info.warnings[0]
    assert correlation(pairs[0].depth, FLOOR) > 0.999
    assert read(tmp_path / "given", maps * 2, suffix, unit="m").info.unit == "metres"
    alone = read(tmp_path / "one", maps, suffix)
    assert alone.info.unit == "metres" and "look normalised" in alone.info.warnings[0]


def test_metres_that_are_cut_off_at_one_are_not_normalised(tmp_path):
    pairs = read(tmp_path, [(FLOOR / 4).clip(0, 1)] * 3, "npy")
    assert pairs.info.unit == "metres"


INVERSE = {
    "16 bits": (whole(10000 / FLOOR), "png"),
    "float": (1 / FLOOR, "npy"),
    "float of a thousand": (1000 / FLOOR, "npy"),
    "tiff": ((500 / FLOOR).astype(np.float32), "tif"),
    "sky at 0": (np.where(Y < 70, 0, whole(10000 / FLOOR)).astype(np.uint16), "png"),
    "normalised": (whole(65535 * (1 / FLOOR - 1 / 6) / (1 - 1 / 6)), "png"),
    "disparity of a laser": (np.where(SPARSE, 0, whole(10000 / FLOOR)).astype(np.uint16), "png"),
}


@pytest.mark.parametrize("case", INVERSE)
def test_inverse_depth_is_found_by_its_floors_and_can_be_turned_off(tmp_path, case):
    values, suffix = INVERSE[case]
    pairs = read(tmp_path / "auto", [values] * 5, suffix)
    depth = pairs[0].depth
    assert pairs.info.inverse and pairs.info.unit == "relative"
    assert np.corrcoef(1 / depth[depth > 0], 1 / FLOOR[depth > 0])[0, 1] > 0.999
    assert pairs.info.warnings[0].startswith("In 5 of 5 maps") and "inverse off" in pairs.info.warnings[0]
    off = read(tmp_path / "off", [values] * 5, suffix, inverse=False)
    assert not off.info.inverse and correlation(off[0].depth, FLOOR) < 0


def test_inverse_depth_without_a_unit_is_found_as_well(tmp_path):
    pairs = read(tmp_path, [whole(10000 / FLOOR)] * 5, unit="none")
    assert pairs.info.inverse and correlation(pairs[0].depth, FLOOR) > 0.999


NOT_TURNED = {
    "two maps": ([whole(10000 / FLOOR)] * 2, {}),
    "three maps": ([whole(10000 / FLOOR)] * 3, {}),
    "a unit is given": ([whole(10000 / FLOOR)] * 6, {"unit": "mm"}),
    "the folder is one of metres": ([whole(10000 / FLOOR)] * 6, {"depth": "kitti_depth"}),
    "only three of four say so": ([whole(10000 / FLOOR)] * 6 + [whole(1000 * FLOOR)] * 2, {}),
}


@pytest.mark.parametrize("case", NOT_TURNED)
def test_where_the_floor_says_little_there_is_a_warning_only(tmp_path, case):
    maps, options = NOT_TURNED[case]
    pairs = read(tmp_path, maps, **options)
    assert not pairs.info.inverse and pairs.info.unit == "metres"
    assert any("if larger values mean nearer" in text for text in pairs.info.warnings)


@pytest.mark.parametrize(
    "depth",
    [2 + 0.05 * np.sin(Y + X), np.full(FLOOR.shape, 2.0), np.where(Y < 60, 2.0, 2.12)],
    ids=["from above", "wall", "slightly tilted"],
)
def test_flat_pictures_say_nothing_of_the_direction(tmp_path, depth):
    pairs = read(tmp_path, [whole(depth * 1000)] * 6)
    assert not pairs.info.inverse and pairs.info.unit == "metres"


def test_rows_without_readings_do_not_hide_the_floor():
    disparity = np.where(Y < 80, 0, 1 / FLOOR)
    assert tilt(disparity) > 0.2 and tilt(np.zeros(FLOOR.shape)) is None
    assert tilt(np.where(abs(Y - 60) < 5, FLOOR, 0)) is None  # a narrow band
    assert nearer_by_floor([tilt(disparity)] * 4).startswith("In 4 of 4") and nearer_by_floor([None] * 9) == ""


def photos(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8) for i in range(count)]


@pytest.mark.parametrize(("values", "inverse"), [(1000 / FLOOR, True), (FLOOR * 37, False)], ids=["inverse", "depth"])
def test_a_probe_without_a_scale_learns_either_the_right_way_round(engine, monkeypatch, values, inverse):
    probe = DepthProbe("lin1", epochs=2, resolution=112, bins=32, relative=True)
    probe.fit(engine, [(photo, values) for photo in photos(6)])
    found = probe.predict(engine, photos(1)[0], guided=False).mean(1)
    assert np.corrcoef(found, FLOOR[:, 0])[0, 1] > 0.5
    assert probe.inverse_ is inverse is probe.card_["inverse"]
    assert ("So larger numbers were taken as nearer" in probe.note_) == inverse
    truth = measured(monkeypatch, probe, engine, [(photos(1)[0], values)])  # one map cannot tell; the probe knows
    assert correlation(truth, FLOOR) > 0.99


def measured(monkeypatch, probe: DepthProbe, engine, pairs) -> np.ndarray:
    """Return the truth that a probe is measured against."""
    truths = []
    real = probe_module.depth_metrics
    monkeypatch.setattr(probe_module, "depth_metrics", lambda depth, truth: truths.append(truth) or real(depth, truth))
    probe.evaluate(engine, pairs)
    return truths[0]


def test_pairs_that_were_turned_when_read_are_not_turned_again(tmp_path, monkeypatch, engine):
    pairs = read(tmp_path, [whole(10000 / FLOOR)] * 6)
    probe = DepthProbe("lin1", epochs=2, resolution=112, bins=32, relative=True, inverse=True).fit(engine, pairs)
    assert np.corrcoef(probe.predict(engine, photos(1)[0], guided=False).mean(1), FLOOR[:, 0])[0, 1] > 0.5
    assert correlation(measured(monkeypatch, probe, engine, pairs), FLOOR) > 0.99


def test_the_command_says_what_it_took(tmp_path, capsys):
    folder = folder_of(tmp_path, [whole(10000 / FLOOR)] * 4)
    assert main(["depth-train", str(folder), "--check"]) == 0
    assert "In 4 of 4 maps" in capsys.readouterr().err
    assert main(["depth-train", str(folder), "--check", "--no-inverse"]) == 0
    assert "median depth 2.84 m" in capsys.readouterr().out


def test_multiples_of_eight_are_millimetres_turned_by_three_bits(tmp_path):
    pairs = read(tmp_path, [(whole(FLOOR * 1000) << 3).astype(np.uint16)])
    np.testing.assert_allclose(pairs[0].depth, FLOOR, atol=0.001)
    assert pairs.info.scale == {"i": 1 / 8000}


def pgm(values: np.ndarray, white: int) -> bytes:
    head = f"P5\n# a comment\n{values.shape[1]} {values.shape[0]}\n{white}\n".encode()
    return head + values.astype(">u2" if white > 255 else "u1").tobytes()


def pfm(values: np.ndarray, kind: str) -> bytes:
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{-1.0 if kind == '<f4' else 1.0}\n".encode()
    return head + values[::-1].astype(kind).tobytes()


NETPBM = {
    "16 bits": ("pgm", pgm(whole(FLOOR * 1000), 65535)),
    "a largest value of its own": ("pgm", pgm(whole(FLOOR * 1000), 7000)),
    "floating point": ("pfm", pfm(FLOOR, "<f4")),
    "the other order of bytes": ("pfm", pfm(FLOOR, ">f4")),
}


@pytest.mark.parametrize("case", NETPBM)
def test_netpbm_files_hold_depth(tmp_path, case):
    suffix, data = NETPBM[case]
    folder = folder_of(tmp_path, [whole(FLOOR * 1000)])
    (folder / "depth" / "0.png").unlink()
    (folder / "depth" / f"0.{suffix}").write_bytes(data)
    pairs, _ = read_pairs(folder)
    np.testing.assert_allclose(pairs[0].depth, FLOOR, atol=0.001)


@pytest.mark.parametrize(
    ("suffix", "data", "reason"),
    [
        ("pgm", pgm(whole(FLOOR), 255), "8-bit picture"),
        ("pfm", pfm(FLOOR, "<f4")[:-9], "truncated"),
        ("pfm", b"PF\n2 2\n-1\n" + bytes(48), "one channel"),
    ],
    ids=["8 bits", "cut off", "colours"],
)
def test_other_netpbm_files_are_refused(tmp_path, suffix, data, reason):
    folder = folder_of(tmp_path, [whole(FLOOR * 1000)])
    (folder / "depth" / "0.png").unlink()
    (folder / "depth" / f"0.{suffix}").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_pairs(folder)


def test_a_file_of_several_depth_maps_is_refused(tmp_path):
    folder = folder_of(tmp_path, [whole(FLOOR * 1000)])
    page = Image.fromarray(whole(FLOOR * 1000))
    (folder / "depth" / "0.png").unlink()
    page.save(folder / "depth" / "0.tif", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match="holds 2 pages"):
        read_pairs(folder)
