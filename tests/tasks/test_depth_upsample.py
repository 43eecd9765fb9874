"""Depth to pixels: bilinear, and led by the photo."""

import numpy as np
import pytest

from dinodemo.tasks.depth.training import reduce_depth
from dinodemo.tasks.depth.upsample import guided_to_pixels, to_pixels


def test_bilinear_agrees_with_a_loop():
    depth = np.random.default_rng(0).uniform(1, 5, (4, 5)).astype(np.float32)
    found = to_pixels(depth, (11, 13))
    for y in range(11):
        for x in range(13):
            v, u = (y + 0.5) * 4 / 11 - 0.5, (x + 0.5) * 5 / 13 - 0.5
            top, left = int(np.floor(v)), int(np.floor(u))
            slow = 0.0
            for dy, wy in ((0, 1 - (v - top)), (1, v - top)):
                for dx, wx in ((0, 1 - (u - left)), (1, u - left)):
                    slow += wy * wx * depth[np.clip(top + dy, 0, 3), np.clip(left + dx, 0, 4)]
            assert found[y, x] == pytest.approx(slow, rel=1e-5)


def step_scene(size=(168, 224), edge=120):
    """Make a photo with an edge that is also a step of depth from 1.5 m to 4 m: photo, true depth, the head's grid."""
    truth = np.full(size, 1.5, np.float32)
    truth[:, edge:] = 4
    rng = np.random.default_rng(0)
    rgb = np.where(truth[..., None] < 2, (200, 150, 90), (60, 80, 120)) + rng.integers(-12, 13, (*size, 3))
    coarse = to_pixels(reduce_depth(truth, (size[0] // 14, size[1] // 14)), (size[0] // 14 * 4, size[1] // 14 * 4))
    return rgb.astype(np.uint8), truth, coarse


@pytest.mark.parametrize("edge", [112, 117, 120, 124])
def test_an_edge_of_the_photo_sharpens_a_step_of_depth(edge):
    rgb, truth, coarse = step_scene(edge=edge)
    near = slice(edge - 14, edge + 14)
    errors = [
        np.abs(d - truth)[:, near].mean() for d in (guided_to_pixels(coarse, rgb), to_pixels(coarse, truth.shape))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_nothing_leaves_the_depths_around_it():
    rgb, _, coarse = step_scene()
    found = guided_to_pixels(coarse, rgb)
    assert found.dtype == np.float32 and found.shape == rgb.shape[:2]
    assert found.min() >= coarse.min() * 0.999 and found.max() <= coarse.max() * 1.001


def test_texture_of_the_photo_is_not_copied_onto_an_even_surface():
    rgb = np.random.default_rng(1).integers(90, 150, (140, 140, 3), dtype=np.uint8)
    plane = np.repeat(np.linspace(2, 4, 40, dtype=np.float32)[:, None], 40, axis=1)
    found, even = guided_to_pixels(plane, rgb), guided_to_pixels(plane, np.full_like(rgb, 120))
    assert np.abs(found - even).max() < 0.06


@pytest.mark.parametrize("size", [(30, 300), (300, 30), (9, 9), (61, 83)])
def test_any_size_and_aspect(size):
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = guided_to_pixels(np.full((12, 20), 3, np.float32), rgb)
    assert found.shape == size
    np.testing.assert_allclose(found, 3, rtol=1e-4)


def test_reducing_takes_the_mean_of_the_readings_and_drops_what_has_few():
    depth = np.zeros((4, 6), np.float32)
    depth[:2, :2] = [[1, 3], [0, 2]]  # three of four
    depth[:2, 2] = 5  # half of the cell
    depth[2, 0] = 7  # a quarter
    depth[2:, 4:] = 99  # out of range
    found = reduce_depth(depth, (2, 3), low=0.5, high=10)
    np.testing.assert_allclose(found, [[2, 5, 0], [0, 0, 0]], rtol=1e-5)


def test_a_coarse_depth_map_gives_its_nearest_readings():
    assert reduce_depth(np.array([[1.0, 2.0]]), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2
