"""What the segmentation tab draws and exports."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.tasks.segmentation import draw as view
from dinodemo.tasks.segmentation.draw import Look, Result


class Fake:
    """Stand in for a Segmentation: two boxes, the smaller one with the lower score."""

    presence = 0.9

    def __init__(self):
        self.score = np.zeros((60, 80), np.float32)
        self.score[10:40, 10:30] = 0.9
        self.score[20:30, 50:70] = 0.6

    def at(self, threshold, min_presence):
        return (self.score > threshold) & (self.presence >= min_presence)


@pytest.fixture
def result() -> Result:
    photo = Photo(np.full((60, 80, 3), 90, np.uint8), "photo one.jpg")
    return Result(photo, "no such file", (120, 160), Fake())


LOOK = Look(0.5, 0.5, "Overlay")


def test_a_higher_least_presence_empties_a_photo(result):
    assert view.look_at(result, Look(0.5, 0.5, "Overlay", 0.9)).mask.any()
    shown = view.look_at(result, Look(0.5, 0.5, "Overlay", 0.95))
    assert not shown.mask.any() and shown.candidate.any() and "unsure: is it?" in view.caption(shown)


@pytest.mark.parametrize(("presence", "state"), [(0.05, "not here"), (0.3, "unsure"), (0.5, "found")])
def test_a_photo_is_in_one_of_three_states(result, presence, state):
    result.segmentation.presence = presence
    shown = view.look_at(result, LOOK)
    assert shown.state == state and view.caption(shown).startswith(state)
    assert shown.mask.any() == (state == "found") and shown.candidate.any() == (state != "not here")
    _, facts = view.full_mask(result, LOOK)
    assert facts["state"] == state and facts["count"] == (2 if state == "found" else 0)


def test_what_is_unsure_is_outlined_and_not_painted(result):
    result.segmentation.presence = 0.3
    picture = view.draw_result(view.look_at(result, LOOK), 160)
    assert (picture == view.DOUBT).all(axis=2).any() and (picture[50, 40] == 90).all()


def test_results_are_sorted_by_match_and_counted(result):
    other = Result(Photo(result.photo.rgb, "other.jpg"), "", (120, 160), Fake())
    other.segmentation.presence = 0.95
    assert view.by_match([result, other]) == [other, result]
    rows = [{"photo": "a, b.jpg", "state": "found", "presence": 0.9, "count": 2}]
    assert view.count_table(rows).decode().splitlines() == ["photo,state,match,count", '"a, b.jpg",found,0.9,2']


def slow_run_lengths(mask):
    counts, value, run = [], False, 0
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] != value:
                counts.append(run)
                value, run = not value, 0
            run += 1
    return [*counts, run]


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_against_a_slow_reference(seed):
    mask = np.random.default_rng(seed).random((5, 7)) > 0.5
    mask[0, 0] = seed % 2 == 0
    assert view.run_lengths(mask) == {"size": [5, 7], "counts": slow_run_lengths(mask)}


def test_run_lengths_of_empty_and_full_masks():
    assert view.run_lengths(np.zeros((3, 4), bool))["counts"] == [12]
    assert view.run_lengths(np.ones((3, 4), bool))["counts"] == [0, 12]


def test_threshold_and_hidden_instances_make_the_mask(result):
    both = view.look_at(result, LOOK)
    assert [i.number for i in both.instances] == [1, 2] and both.mask.sum() == 30 * 20 + 10 * 20
    assert view.look_at(result, Look(0.7, 0.5, "Overlay")).mask.sum() == 30 * 20
    without = view.look_at(view.toggle(both, [2]), LOOK)
    assert without.mask.sum() == 10 * 20 and len(without.instances) == 2


@pytest.mark.parametrize("name", view.VIEWS)
def test_every_view_draws_and_differs_from_the_photo(result, name):
    picture = view.draw_result(view.look_at(result, Look(0.5, 0.5, name)), 160)
    assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8
    assert not np.array_equal(picture, np.full_like(picture, 90))


def test_zip_holds_full_size_masks_cutouts_and_coco(result):
    name, content = view.zip_file([result], LOOK, "Made by a test.")
    archive = zipfile.ZipFile(io.BytesIO(content))
    picture = Image.open(archive.open("01-photo_one-mask.png"))
    mask = np.asarray(picture) > 127
    assert name == "segmentation.zip" and mask.shape == (120, 160) and picture.info["Comment"] == "Made by a test."
    assert abs(int(mask.sum()) - 4 * 800) < 40
    cutout = np.asarray(Image.open(archive.open("01-photo_one-cutout.png")))
    assert np.array_equal(cutout[..., 3] > 0, mask)
    assert archive.read("counts.csv").decode().splitlines()[1] == "photo one.jpg,found,0.9,2"
    coco = json.loads(archive.read("annotations.json"))
    first, second = coco["annotations"]
    assert (first["id"], second["id"]) == (1, 2) and first["area"] > second["area"]
    x, y, w, h = first["bbox"]
    assert abs(x - 20) <= 1 and abs(y - 20) <= 1 and abs(w - 40) <= 2 and abs(h - 60) <= 2
    assert sum(first["segmentation"]["counts"]) == 120 * 160
