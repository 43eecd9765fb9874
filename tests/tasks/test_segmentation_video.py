"""Masks through a video: votes, memory of frames, absence, "not this", and the whole way on moving photos."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import load_image
from dinodemo.tasks.segmentation import ReferenceSegmenter
from dinodemo.tasks.segmentation.scores import Memory, score_patches
from dinodemo.tasks.segmentation.video import NEIGHBOURS, TEMPERATURE, Tracker, propagate, stretch

ASSETS = Path(__file__).parents[2] / "assets"
DAVIS = Path(__file__).parents[2] / "../shared/data/segmentation/davis2016"
RESOLUTION = 224  # a fifth of the default's work; things stay large enough
GRID = (6, 8)
WIDTH = 64
THING = (slice(1, 4), slice(2, 6))  # 12 of 48 patches


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


def picture_of(angle: float | None, seed: int = 0, other: bool = False) -> np.ndarray:
    """Make tokens whose thing turns from one direction (0) to another (90 degrees); None leaves it out."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((*GRID, WIDTH), np.float32)
    tokens[..., 2:10] = rng.normal(0, 1, (*GRID, 8))
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    if angle is not None:
        thing = np.zeros(WIDTH)
        thing[0], thing[1] = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        tokens[THING] = thing
    if other:
        tokens[5, :3] = 0
        tokens[5, :3, 20] = 1
    return (tokens + rng.normal(0, 0.01, tokens.shape)).astype(np.float32)


def memory_of(tokens: np.ndarray, negative: np.ndarray | None = None) -> Memory:
    labels = np.zeros(GRID, np.float32)
    labels[THING] = 1
    flat = tokens.reshape(-1, WIDTH) / np.linalg.norm(tokens.reshape(-1, WIDTH), axis=1, keepdims=True)
    parts = [flat, labels.ravel(), np.zeros(flat.shape[0], int), labels.ravel() > 0.5]
    if negative is not None:
        count = len(negative)
        more = [negative, np.zeros(count, np.float32), np.full(count, -1), np.zeros(count, bool)]
        parts = [np.concatenate(pair) for pair in zip(parts, more, strict=True)]
    return Memory(*parts)


def is_exact(score: np.ndarray) -> bool:
    truth = np.zeros(GRID, bool)
    truth[THING] = True
    return np.array_equal(score > 0.5, truth)


def test_votes_are_what_a_slow_softmax_says():
    reference, frame, target = picture_of(0), picture_of(20, seed=1), picture_of(40, seed=2)
    memory = memory_of(reference)
    tracker = Tracker(memory)
    first = tracker.score(frame)
    assert first.presence > 0.5
    score = tracker.score(target).score.ravel()
    unit = [t.reshape(-1, WIDTH) / np.linalg.norm(t.reshape(-1, WIDTH), axis=1, keepdims=True) for t in (frame, target)]
    similarity = unit[1] @ np.concatenate([memory.tokens, unit[0]]).T
    labels = np.concatenate([memory.labels, first.score.ravel()])
    votes = []
    for row in similarity:
        nearest = np.argsort(-row)[:NEIGHBOURS]
        weights = np.exp(row[nearest] / TEMPERATURE)
        votes.append((weights * labels[nearest]).sum() / weights.sum())
    np.testing.assert_allclose(score, stretch(np.array(votes)), atol=1e-4)


def test_a_thing_that_slowly_changes_is_followed_beyond_what_its_reference_knows():
    memory = memory_of(picture_of(0))
    tracker = Tracker(memory)
    frames = [picture_of(angle, seed=angle) for angle in range(15, 91, 15)]
    scores = [tracker.score(frame) for frame in frames]
    assert all(is_exact(s.score) and s.presence > 0.5 for s in scores)
    assert score_patches(frames[-1], memory).presence < 0.5


def test_the_reference_always_votes():
    tracker = Tracker(memory_of(picture_of(0)), remembered=1)
    for angle in (30, 60, 90):
        tracker.score(picture_of(angle, seed=angle))
    back = tracker.score(picture_of(0, seed=9))  # not at all like the one frame remembered
    assert is_exact(back.score) and back.presence > 0.5


def test_frames_without_the_thing_are_not_remembered():
    tracker = Tracker(memory_of(picture_of(0)), remembered=2)
    for angle in (25, 50, 75):
        tracker.score(picture_of(angle, seed=angle))
    absent = [tracker.score(picture_of(None, seed=20 + i)).presence for i in range(4)]
    assert max(absent) < 0.2
    again = tracker.score(picture_of(90, seed=5))  # known from the frames before the gap only
    assert is_exact(again.score) and again.presence > 0.5


def test_a_first_frame_is_present_as_it_is_alone():
    memory = memory_of(picture_of(0))
    frame = picture_of(20, seed=3)
    assert Tracker(memory).score(frame).presence == score_patches(frame, memory).presence


def test_what_was_painted_not_this_is_never_painted():
    refused = np.zeros((1, WIDTH), np.float32)
    refused[0, 20] = 1
    tracker = Tracker(memory_of(picture_of(0), refused))
    for seed in range(3):
        score = tracker.score(picture_of(20 * seed, seed=seed, other=True)).score
        assert is_exact(score) and score[5, :3].max() < 1e-6


@pytest.mark.parametrize("values", [np.zeros(6), np.full(6, 0.7)])
def test_maps_without_any_difference_become_empty(values):
    np.testing.assert_array_equal(stretch(values), np.zeros(6))


def test_frames_come_one_at_a_time_with_progress(engine, make_picture):
    segmenter = ReferenceSegmenter(engine, resolution=70, min_presence=0)
    segmenter.fit([(make_picture(60, 90), disc((60, 90), 40, 30, 20))])
    pulled, told = [], []

    def frames():
        for seed in range(3):
            pulled.append(seed)
            yield make_picture(45, 70, seed=seed)

    results = propagate(segmenter, frames(), progress=lambda *args: told.append(args))
    assert pulled == []
    index, first = next(results)
    assert (index, pulled, told) == (0, [0], [(1, None)])
    assert first.mask.shape == first.score.shape == (45, 70) and first.mask.dtype == bool
    assert [i for i, _ in results] == [1, 2]
    listed = list(propagate(segmenter, [make_picture(45, 70)] * 2, progress=lambda *args: told.append(args)))
    assert len(listed) == 2 and told[-1] == (2, 2)


def test_frames_of_other_sizes_may_follow(engine, make_picture):
    segmenter = ReferenceSegmenter(engine, resolution=70, min_presence=0)
    segmenter.fit([(make_picture(60, 90), disc((60, 90), 40, 30, 20))])
    sizes = [(60, 90), (90, 60), (14, 200)]
    assert [s.mask.shape for _, s in propagate(segmenter, [make_picture(*size) for size in sizes])] == sizes


def test_mistakes_are_named_at_once(engine, make_picture):
    segmenter = ReferenceSegmenter(engine, resolution=70)
    with pytest.raises(ValueError, match="call fit"):
        propagate(segmenter, [])
    segmenter.fit([(make_picture(60, 90), disc((60, 90), 40, 30, 20))])
    with pytest.raises(ValueError, match="at least 1"):
        propagate(segmenter, [], remembered=0)


def test_a_moving_blossom_is_followed_and_missed_while_away(offline_engine):
    rgb = load_image(ASSETS / "flower_dahlia.jpg")
    cut = disc(rgb.shape[:2], 307, 221, 137)
    forest = np.asarray(Image.fromarray(load_image(ASSETS / "forest_stream.jpg")).resize((640, 420)))
    frames, truths = [], []
    for left in (0, 60, None, 120):
        frame, truth = forest.copy(), np.zeros(forest.shape[:2], bool)
        if left is not None:
            frame[70:344, left : left + 274][cut[84:358, 170:444]] = rgb[84:358, 170:444][cut[84:358, 170:444]]
            truth[70:344, left : left + 274] = cut[84:358, 170:444]
        frames.append(frame)
        truths.append(truth)
    segmenter = ReferenceSegmenter(offline_engine, resolution=RESOLUTION).fit([(rgb, cut)])
    for (_, found), truth in zip(propagate(segmenter, frames), truths, strict=True):
        assert iou(found.mask, truth) > 0.9 if truth.any() else not found.found


def test_frames_help_each_other_on_a_real_video(offline_engine):
    if not (DAVIS / "pairs.csv").is_file():
        pytest.skip(f"{DAVIS} is missing: it holds frames of DAVIS 2016 with masks")
    group = "drift-straight"
    with (DAVIS / "pairs.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["object"] == group]
    if not rows:
        pytest.skip(f"{DAVIS} does not hold the video {group}")
    reference = load_image(DAVIS / rows[0]["ref_image"]), load_image(DAVIS / rows[0]["ref_mask"])[..., 0] > 127
    frames = [load_image(DAVIS / row["target_image"]) for row in rows]
    truths = [load_image(DAVIS / row["target_mask"])[..., 0] > 127 for row in rows]
    segmenter = ReferenceSegmenter(offline_engine, resolution=RESOLUTION, refine=False).fit([reference])
    alone = [iou(segmenter.predict(frame).mask, truth) for frame, truth in zip(frames, truths, strict=True)]
    together = [iou(s.mask, truth) for (_, s), truth in zip(propagate(segmenter, frames), truths, strict=True)]
    assert np.mean(together) > np.mean(alone)
