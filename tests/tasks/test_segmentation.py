"""Reference-mask segmentation: reduction by area, checks of masks, and the whole way on photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import load_image
from dinodemo.tasks.segmentation import ReferenceSegmenter, find_instances
from dinodemo.tasks.segmentation.refine import follow_edges, to_pixels
from dinodemo.tasks.segmentation.scores import (
    CLOSEST,
    Memory,
    centred_similarity,
    fade_weak_groups,
    foreground_labels,
    match_cosine,
    reduce_by_area,
    spread_labels,
)
from dinodemo.tasks.tokens import flat_unit, positional_basis, without

ASSETS = Path(__file__).parents[2] / "assets"
RESOLUTION = 308  # a quarter of the default's work; things stay large enough


def disc(size: tuple[int, int], x: float, y: float, rx: float, ry: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 < 1


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope="module")
def dahlia():
    """Give the photo of a dahlia and a mask of its blossom."""
    rgb = load_image(ASSETS / "flower_dahlia.jpg")
    return rgb, disc(rgb.shape[:2], 307, 221, 137, 137)


@pytest.fixture(scope="module")
def moved(dahlia):
    """Give the blossom on another background, smaller, mirrored and off the centre, with its mask."""
    rgb, mask = dahlia
    background = np.asarray(Image.fromarray(load_image(ASSETS / "forest_stream.jpg")).resize((500, 333)))
    size = (427, 285)
    blossom = np.asarray(Image.fromarray(rgb[:, ::-1]).resize(size))
    small = np.asarray(Image.fromarray(mask[:, ::-1]).resize(size))
    picture, truth = background.copy(), np.zeros((333, 500), bool)
    picture[40:325, 60:487][small] = blossom[small]
    truth[40:325, 60:487] = small
    return picture, truth


@pytest.fixture(scope="module")
def segmenter(offline_engine, dahlia):
    return ReferenceSegmenter(offline_engine, resolution=RESOLUTION).fit([dahlia])


@pytest.mark.parametrize(("size", "grid"), [((50, 70), (5, 7)), ((53, 31), (7, 4)), ((3, 5), (6, 7)), ((9, 9), (1, 1))])
def test_masks_are_reduced_by_area(size, grid):
    mask = np.random.default_rng(0).random(size) > 0.6
    # a slow way without fractions: every pixel and every cell is cut into whole units
    fine = np.kron(mask, np.ones(grid))
    blocks = fine.reshape(grid[0], size[0], grid[1], size[1])
    np.testing.assert_allclose(reduce_by_area(mask, grid), blocks.mean(axis=(1, 3)), atol=1e-6)


def test_a_thing_smaller_than_half_a_patch_still_is_foreground():
    labels, foreground = foreground_labels(np.array([0.0, 0.02, 0.1, 0.0]))
    assert labels.max() == 1
    assert foreground.tolist() == [False, False, True, False]


def test_labels_of_large_things_are_the_covered_shares():
    share = np.array([0.0, 0.3, 0.8, 1.0])
    labels, foreground = foreground_labels(share)
    np.testing.assert_allclose(labels, share, atol=1e-6)
    assert foreground.tolist() == [False, False, True, True]


def test_labels_spread_as_a_slow_softmax_says():
    rng = np.random.default_rng(1)
    similarity, labels = rng.random((6, 30), np.float32), rng.random(30, np.float32)
    expected = []
    for row in similarity:
        nearest = np.argsort(-row)[:4]
        weights = np.exp(row[nearest] / 0.1)
        expected.append((weights * labels[nearest]).sum() / weights.sum())
    np.testing.assert_allclose(spread_labels(similarity, labels, 4, 0.1), expected, rtol=1e-5)


def test_place_is_taken_out_of_tokens_and_what_they_show_stays():
    rng = np.random.default_rng(3)
    place = rng.normal(size=(5, 6, 16)) * (np.arange(16) < 10)  # where a patch lies: the first directions
    shown = rng.normal(size=(5, 6, 16)) * (np.arange(16) >= 10)
    clean = without((4 * place + shown).astype(np.float32), positional_basis(place.astype(np.float32)))
    np.testing.assert_allclose(clean, flat_unit(shown).reshape(shown.shape), atol=1e-5)


def test_similarity_is_the_mean_cosine_to_the_closest_patches_of_the_thing_less_what_all_share():
    rng = np.random.default_rng(4)
    tokens, target = (flat_unit(rng.normal(size=(n, 8)).astype(np.float32) + 1) for n in (40, 7))
    foreground = np.arange(40) < 15
    reference = np.where(np.arange(40) < 30, 0, -1)  # the last ten are "not this": no part of the mean
    memory = Memory(tokens, foreground.astype(np.float32), reference, foreground)
    center = (tokens[:30].mean(axis=0) + target.mean(axis=0)) / 4
    expected = []
    for token in target - center:
        cosines = [
            token @ (t - center) / np.linalg.norm(token) / np.linalg.norm(t - center) for t in tokens[foreground]
        ]
        expected.append(np.mean(sorted(cosines)[-CLOSEST:]))
    np.testing.assert_allclose(centred_similarity(target, memory), expected, rtol=1e-4)


def test_a_group_that_is_much_less_alike_fades_and_the_best_stays():
    score = np.zeros((6, 9))
    score[1:4, 1:3], score[1:4, 5:8] = 0.9, 0.8
    centred = np.full((6, 9), 0.4)
    centred[1:4, 1:3] = 0.9
    faded = fade_weak_groups(score, centred)
    assert (faded[1:4, 1:3] == 0.9).all() and (faded[1:4, 5:8] < 0.5).all()
    centred[1:4, 5:8] = 0.85
    np.testing.assert_array_equal(fade_weak_groups(score, centred), score)


def test_presence_asks_whether_the_thing_is_found_again_not_the_background():
    memory = Memory(
        np.eye(2, dtype=np.float32), np.array([1, 0], np.float32), np.zeros(2, int), np.array([True, False])
    )
    assert match_cosine(np.array([[0.95, 0.1]], np.float32), memory) == pytest.approx(0.95)
    assert match_cosine(np.array([[0.1, 0.95]], np.float32), memory) == pytest.approx(0.1)


def test_edges_of_the_picture_draw_a_blurred_mask_tight():
    rgb = np.full((90, 120, 3), (30, 90, 40), np.uint8)
    truth = disc((90, 120), 60, 45, 30, 25)
    rgb[truth] = (220, 60, 30)
    rgb = np.clip(rgb + np.random.default_rng(2).normal(0, 6, rgb.shape), 0, 255).astype(np.uint8)
    rows, columns = np.mgrid[:9, :12] * 10 + 5  # one patch for ten pixels
    distance = np.hypot((columns - 64) / 30, (rows - 48) / 25)  # shifted by some pixels, soft
    score = np.clip(1.5 - distance, 0, 1).astype(np.float32)
    assert iou(to_pixels(score, (90, 120)) > 0.5, truth) < 0.85
    cut = follow_edges(rgb, score, 0.5)
    assert iou(cut, truth) > 0.97
    np.testing.assert_array_equal(cut, follow_edges(rgb, score, 0.5))


def test_an_empty_score_stays_empty_under_refinement():
    rgb = np.zeros((20, 30, 3), np.uint8)
    assert not follow_edges(rgb, np.zeros((2, 3), np.float32), 0.5).any()


def test_instances_are_the_connected_pieces_by_size():
    mask = np.zeros((40, 60), bool)
    mask[2:6, 3:8] = True
    mask[20:35, 30:50] = True
    mask[0, 59] = True  # a speck
    found = find_instances(mask, smallest=0.001)
    assert [(i.number, i.area, i.box) for i in found] == [(1, 300, (30, 20, 50, 35)), (2, 20, (3, 2, 8, 6))]
    assert found.mask([2]).sum() == 20 and found.mask([]).sum() == 0 and found.mask().sum() == 320
    assert found.items[1].center == (5.0, 3.5)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.zeros((60, 90), bool), "empty; draw over"),
        (np.ones((60, 90), bool), "covers all of .*leave the background out"),
        (np.ones((90, 60), bool), r"60x90 \(width x height\) but picture is 90x60 .*rotate"),
        (np.ones((60, 90, 3), bool), r"shape \(H, W\)"),
    ],
)
def test_masks_that_say_nothing_are_refused_with_what_to_do(engine, make_picture, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        ReferenceSegmenter(engine, resolution=70).fit([(make_picture(60, 90), mask)])


def test_other_mistakes_are_named(engine, make_picture):
    segmenter = ReferenceSegmenter(engine, resolution=70)
    with pytest.raises(ValueError, match="call fit"):
        segmenter.predict(make_picture())
    with pytest.raises(ValueError, match="at least one"):
        segmenter.fit([])
    good = (make_picture(60, 90), disc((60, 90), 40, 30, 20, 20))
    with pytest.raises(ValueError, match="not this"):
        segmenter.fit([good], negatives=[(make_picture(60, 90), np.zeros((60, 90), bool))])
    with pytest.raises(ValueError, match="from 0 to 1"):
        segmenter.fit([good]).predict(make_picture()).at(1.5)


@pytest.mark.parametrize("size", [(14, 300), (301, 15), (1, 1), (61, 97), (333, 17)])
def test_odd_sizes_give_masks_of_the_pictures_own_size(engine, make_picture, size):
    segmenter = ReferenceSegmenter(engine, resolution=70, min_presence=0)
    segmenter.fit([(make_picture(60, 90), disc((60, 90), 40, 30, 20, 20))])
    result = segmenter.predict(make_picture(*size, seed=3))
    assert result.mask.shape == result.score.shape == size
    assert result.mask.dtype == bool and result.score.dtype == np.float32
    assert result.score.min() >= 0 and result.score.max() <= 1 and 0 <= result.presence <= 1


def test_masks_from_files_count_half_of_the_range(engine, make_picture):
    mask = disc((60, 90), 40, 30, 20, 20)
    fitted = [
        ReferenceSegmenter(engine, resolution=70).fit([(make_picture(60, 90), form)]).memory_.labels
        for form in (mask, mask.astype(np.uint8) * 255, mask.astype(np.uint8), mask[..., None], mask * 0.9)
    ]
    for labels in fitted[1:]:
        np.testing.assert_array_equal(labels, fitted[0])


def test_masks_on_the_same_picture_are_united(engine, make_picture):
    picture = make_picture(60, 90)
    left, right = disc((60, 90), 20, 30, 12, 12), disc((60, 90), 70, 30, 12, 12)
    apart = ReferenceSegmenter(engine, resolution=70).fit([(picture, left), (picture, right)])
    listed = ReferenceSegmenter(engine, resolution=70).fit([(picture, [left, right])])
    once = ReferenceSegmenter(engine, resolution=70).fit([(picture, left | right)])
    for other in (apart, listed):
        np.testing.assert_array_equal(other.memory_.labels, once.memory_.labels)


def test_the_same_thing_is_found_on_another_background(segmenter, moved):
    picture, truth = moved
    result = segmenter.predict(picture)
    assert result.presence > 0.5
    assert iou(result.mask, truth) > 0.9
    assert len(result.instances) == 1


def test_what_is_not_there_gives_an_empty_mask(segmenter):
    result = segmenter.predict(ASSETS / "chinese_palace.jpg")
    assert result.presence < 0.2
    assert not result.found and not result.at(0.1).any()
    assert result.prediction.mask(min_presence=0).any()  # it is the presence that emptied it


def test_a_higher_threshold_gives_a_smaller_plain_mask_without_new_features(segmenter, moved, monkeypatch):
    prediction = segmenter.score(moved[0])
    monkeypatch.setattr(segmenter, "engine", None)
    areas = [prediction.mask(t, refine=False).sum() for t in (0.1, 0.5, 0.9)]
    assert areas[0] > areas[1] > areas[2] > 0


def test_a_further_reference_does_not_hurt(offline_engine, segmenter, dahlia, moved):
    picture, truth = moved
    second = (np.ascontiguousarray(dahlia[0][::-1]), dahlia[1][::-1])
    one = segmenter.score(picture)
    two = ReferenceSegmenter(offline_engine, RESOLUTION).fit([dahlia, second]).score(picture)
    assert iou(two.mask(), truth) >= iou(one.mask(), truth) - 0.01
    assert two.presence >= one.presence - 1e-6


def test_a_negative_takes_a_similar_thing_out_and_leaves_the_thing(offline_engine, dahlia, moved):
    photo = np.asarray(Image.fromarray(load_image(ASSETS / "dandelions.jpg")).resize((640, 360)))
    dandelion = disc(photo.shape[:2], 186, 116, 102, 86)
    negative = np.ascontiguousarray(photo[:, ::-1]), dandelion[:, ::-1]
    without = ReferenceSegmenter(offline_engine, RESOLUTION).fit([dahlia])
    against = ReferenceSegmenter(offline_engine, RESOLUTION).fit([dahlia], negatives=[negative])
    painted, spared = (s.score(photo).mask(min_presence=0)[dandelion].mean() for s in (without, against))
    assert painted > 0.5
    assert spared < 0.1
    assert against.score(photo).presence < without.score(photo).presence
    assert iou(against.predict(moved[0]).mask, moved[1]) > 0.9
