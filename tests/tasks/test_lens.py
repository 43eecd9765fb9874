"""The lens: tokens packed for a browser keep their cosines; pins select patches; the page stands alone."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from dinodemo import cli
from dinodemo.engine.features import Features
from dinodemo.io.images import Photo
from dinodemo.tasks.lens.packing import MOST_ERROR, lens_value, pack
from dinodemo.tasks.lens.similarity import Pin, mask_above, pinned_similarity, read_state
from dinodemo.tasks.lens.standalone import browser_side, page

RNG = np.random.default_rng(0)


def features(patches: np.ndarray, backbone: str = "made-up") -> Features:
    patches = patches.astype(np.float32)
    return Features(
        patches.mean((0, 1)), patches, np.zeros((0, patches.shape[-1]), np.float32), (30, 40), (30, 40), backbone
    )


def exact_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture
def pair() -> list[Features]:
    """Return two grids of tokens of very different lengths, as those of sinks are."""
    grids = [RNG.normal(size=(5, 7, 48)) * RNG.uniform(0.01, 90, size=(5, 7, 1)), RNG.normal(size=(6, 4, 48)) + 1]
    return [features(grid) for grid in grids]


def test_cosines_of_packed_tokens_are_those_of_the_originals(pair):
    packed = pack(pair)
    assert [t.shape for t in packed.tokens] == [(5, 7, 48), (6, 4, 48)] and packed.tokens[0].dtype == np.int8
    for i, j in ((0, 0), (0, 1), (1, 1)):
        for at in ((0, 0), (4, 3), (2, 1)):
            got = exact_cosine(packed.tokens[i][at].astype(float), packed.tokens[j][3, 2].astype(float))
            assert got == pytest.approx(exact_cosine(pair[i].patches[at], pair[j].patches[3, 2]), abs=0.01)
    assert 0 < packed.error < 0.01


def test_many_tokens_are_projected_and_their_cosines_still_hold():
    plane = RNG.normal(size=(12, 64))  # tokens that lie in 12 directions of 64
    grid = features((RNG.normal(size=(20, 20, 12)) @ plane) + 0.001 * RNG.normal(size=(20, 20, 64)))
    packed = pack([grid], most_bytes=400 * 16)
    assert packed.tokens[0].shape == (20, 20, 16) and packed.tokens[0].nbytes <= 400 * 16
    got = exact_cosine(packed.tokens[0][3, 4].astype(float), packed.tokens[0][9, 1].astype(float))
    assert got == pytest.approx(exact_cosine(grid.patches[3, 4], grid.patches[9, 1]), abs=MOST_ERROR)


def test_what_a_projection_would_spoil_is_refused(pair):
    with pytest.raises(ValueError, match=r"59 patches are too many .* lower the input size"):
        pack(pair, most_bytes=59 * 8)


def test_a_basis_is_taken_out_first(pair):
    basis = np.linalg.qr(RNG.normal(size=(48, 3)))[0]
    without = pair[0].patches / np.linalg.norm(pair[0].patches, axis=-1, keepdims=True)
    without = without - (without @ basis) @ basis.T
    token = pack(pair, basis).tokens[0].astype(float)
    assert exact_cosine(token[1, 1], token[4, 6]) == pytest.approx(exact_cosine(without[1, 1], without[4, 6]), abs=0.01)


def test_mixed_backbones_and_no_photos_are_refused(pair):
    with pytest.raises(ValueError, match="at least one"):
        pack([])
    with pytest.raises(ValueError, match="share one backbone"):
        pack([pair[0], features(pair[1].patches, "other")])


def test_pins_give_the_best_alike_minus_the_best_not_alike(pair):
    pins = [Pin(0, 1, 2, 1), Pin(1, 0, 3, 1), Pin(0, 4, 4, -1)]
    maps = pinned_similarity(pair, pins)
    for f, values in zip(pair, maps, strict=True):
        for at in np.ndindex(*f.grid):
            like = [exact_cosine(f.patches[at], pair[p.photo].patches[p.row, p.column]) for p in pins]
            assert values[at] == pytest.approx(max(like[:2]) - like[2], abs=1e-5)
    alone = pinned_similarity(pair, pins[:1])[0]
    assert alone[1, 2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("pins", [[], [Pin(0, 0, 0, -1)], [Pin(2, 0, 0, 1)], [Pin(0, 5, 0, 1)], [Pin(0, 0, -1, 1)]])
def test_pins_that_select_nothing_are_refused(pins, pair):
    with pytest.raises(ValueError, match="pin"):
        pinned_similarity(pair, pins)


def test_a_threshold_makes_a_mask_at_the_photos_size():
    values = np.zeros((4, 4), np.float32)
    values[1:3, 1:3] = 1
    mask = mask_above(values, 0.5, (80, 120))
    assert mask.shape == (80, 120) and mask[40, 60] and not mask[5, 5] and 0.15 < mask.mean() < 0.35
    for threshold, what in ((2.0, "nothing"), (-1.0, "everything")):
        with pytest.raises(ValueError, match=what):
            mask_above(values, threshold, (80, 120))


def test_the_state_of_a_browser_is_read():
    pins, threshold = read_state({"pins": [{"photo": 1, "row": 2, "column": 3, "sign": -1}], "threshold": 0.4})
    assert pins == [Pin(1, 2, 3, -1)] and threshold == 0.4


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {"pins": 3, "threshold": 0},
        {"pins": [{}], "threshold": 0},
        {"pins": [], "threshold": float("nan")},
        {"pins": [{"photo": 0, "row": 0, "column": float("inf"), "sign": 1}], "threshold": 0},
        {"pins": [{"photo": 0, "row": 0, "column": 0, "sign": 1}] * 99, "threshold": 0},
        {"pins": [], "threshold": "high"},
    ],
)
def test_any_other_state_is_refused(state):
    with pytest.raises(ValueError, match="cannot be read"):
        read_state(state)


def test_the_browser_gets_pictures_grids_and_tokens(pair):
    photos = [Photo(np.zeros((30, 40, 3), np.uint8), "a.jpg"), Photo(np.zeros((40, 30, 3), np.uint8), "b.jpg")]
    packed = pack(pair)
    value = lens_value(photos, packed)
    assert value["width"] == 48 and [row["grid"] for row in value["photos"]] == [[5, 7], [6, 4]]
    tokens = np.frombuffer(base64.b64decode(value["photos"][1]["tokens"]), np.int8)
    assert np.array_equal(tokens.reshape(6, 4, 48), packed.tokens[1])
    assert lens_value((), None)["photos"] == [] and lens_value((), None)["version"] != value["version"]


def test_the_page_asks_nobody_and_no_name_breaks_out_of_it(pair):
    name = "</script><b>&.jpg"
    photos = [Photo(np.zeros((30, 40, 3), np.uint8), name)] * 2
    text = page(photos, pack(pair), name)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?https?:|url\(|fetch\(|import\s", text)
    assert text.count("</script>") == 1 and "<b>" not in text and "&lt;b&gt;" in text
    given = json.loads(re.search(r"^const value = (.*);$", text, re.MULTILINE)[1])
    assert given["photos"][0]["name"] == name


def test_the_browsers_side_has_the_packages_colour_maps():
    from dinodemo.io.render import colourise

    maps = json.loads(re.search(r"const MAPS = (\{.*?\}),", browser_side().core)[1])
    levels = np.frombuffer(base64.b64decode(maps["viridis"]), np.uint8).reshape(256, 3)
    assert np.array_equal(levels, colourise(np.linspace(0, 1, 256, dtype=np.float32)[None], "viridis")[0])


@pytest.fixture
def folder(tmp_path, monkeypatch, make_picture, tiny_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dinodemo.backbones.find.default_backbone", lambda: str(tiny_folder))
    for i in range(3):
        Image.fromarray(make_picture(60, 90, seed=i)).save(tmp_path / f"{i}.png")
    return tmp_path


SMALL = ["--resolution", "70", "--device", "cpu"]


def test_the_command_writes_a_page(folder, capsys):
    (folder / "bad.jpg").write_bytes(b"no picture")
    status = cli.main(["lens", "0.png", "bad.jpg", "1.png", "--out", "lens.html", "--json", *SMALL])
    summary = json.loads(capsys.readouterr().out)
    assert status == 3 and summary["photos"] == ["0.png", "1.png"] and summary["error"] < MOST_ERROR
    assert "createLens" in (folder / "lens.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["0.png", "--out", "lens.png"], "must name an .html file"),
        (["0.png", "--out", "there.html"], "is there already"),
        (["0.png"] + [f"{i}.jpg" for i in range(8)] + ["--out", "x.html"], "up to 8 photos"),
    ],
)
def test_the_command_says_what_it_cannot_do(arguments, reason, folder, capsys):
    (folder / "there.html").write_text("")
    for i in range(8):
        (folder / f"{i}.jpg").write_bytes((folder / "0.png").read_bytes())
    assert cli.main(["lens", *arguments, *SMALL]) == 1
    assert reason in capsys.readouterr().err
