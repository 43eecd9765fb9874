"""A depth map in space, and the files written of it, read back by their specifications."""

import math
import struct

import numpy as np
import pytest

from dinodemo.tasks.depth.pointcloud import PointCloud, back_project, flying, to_ply


def photo(height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def step_map(height=20, width=30, near=1.0, far=3.0):
    depth = np.full((height, width), near, np.float32)
    depth[:, width // 2 :] = far
    return depth


def test_points_agree_with_the_pinhole_camera():
    depth = np.random.default_rng(1).uniform(1, 1.01, (4, 6)).astype(np.float32)
    rgb = photo(4, 6)
    cloud = back_project(depth, rgb, fov=90)
    focal = 3.0  # half of the width over tan 45 degrees
    for row in range(4):
        for column in range(6):
            z = float(depth[row, column])
            expected = z * (column + 0.5 - 3) / focal, -z * (row + 0.5 - 2) / focal, -z
            np.testing.assert_allclose(cloud.points[row * 6 + column], expected, rtol=1e-5, atol=1e-6)
            assert np.array_equal(cloud.colours[row * 6 + column], rgb[row, column])
    assert cloud.points.dtype == np.float32 and cloud.triangles is None


@pytest.mark.parametrize("fov", [20, 60, 120])
def test_the_outermost_columns_span_the_field_of_view(fov):
    cloud = back_project(np.ones((3, 2000), np.float32), photo(3, 2000), fov=fov)
    x, _, z = cloud.points.T
    assert math.degrees(2 * math.atan2(x.max(), -z.max())) == pytest.approx(fov, abs=0.1)


def test_an_upright_picture_has_the_same_focal_length_as_a_wide_one():
    wide, upright = (back_project(np.ones(size, np.float32), photo(*size), fov=90) for size in ((40, 60), (60, 40)))
    assert wide.points[:, 0].max() == pytest.approx(upright.points[:, 1].max())


def test_pixels_without_depth_are_left_out():
    depth = np.ones((4, 5), np.float32)
    depth[0, :3] = 0, np.nan, np.inf
    cloud = back_project(depth, photo(4, 5), mesh=True)
    assert len(cloud.points) == 17 and np.isfinite(cloud.points).all()
    assert cloud.triangles.max() < 17


def test_large_maps_are_thinned_evenly():
    cloud = back_project(np.ones((100, 200), np.float32), photo(100, 200), max_points=1000)
    assert 500 <= len(cloud.points) <= 1000
    assert cloud.points[:, 0].min() < -0.5 and cloud.points[:, 0].max() > 0.5


def blurred_step():
    depth = step_map()
    depth[:, 13:17] = 1.3, 1.8, 2.2, 2.7
    return depth


def test_points_that_hang_between_two_surfaces_are_left_out():
    depth = blurred_step()
    assert set(np.flatnonzero(flying(depth).any(0))) == {13, 14, 15, 16}
    kept = np.unique(np.round(-back_project(depth, photo()).points[:, 2], 3))
    assert kept.tolist() == [1, 3]
    assert len(back_project(depth, photo(), edge=None).points) == depth.size


@pytest.mark.parametrize("turned", [False, True])
def test_a_tilted_floor_and_a_sharp_step_lose_no_points(turned):
    rows = np.arange(1, 61)[:, None]
    floor = np.broadcast_to(90.0 / (rows + 20), (60, 40)).astype(np.float32)  # 4.3 m to 1.1 m, as a floor recedes
    for depth in (floor, step_map()):
        assert not flying(depth.T if turned else depth).any()


def test_a_mesh_is_torn_at_a_step_and_whole_elsewhere():
    depth = step_map()
    cloud = back_project(depth, photo(), mesh=True)
    assert len(cloud.points) == depth.size
    whole = 2 * 19 * 29
    assert len(cloud.triangles) == whole - 2 * 19  # one column of cells is missing
    z = cloud.points[cloud.triangles][..., 2]
    assert np.ptp(z, axis=1).max() == 0
    joined = back_project(depth, photo(), mesh=True, edge=None)
    assert len(joined.triangles) == whole


def test_triangles_face_the_camera():
    cloud = back_project(np.ones((5, 6), np.float32), photo(5, 6), mesh=True)
    a, b, c = np.moveaxis(cloud.points[cloud.triangles], 1, 0)
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


@pytest.mark.parametrize(
    ("depth", "rgb", "options", "message"),
    [
        (np.ones((4, 5)), photo(5, 4), {}, "one size"),
        (np.ones((4, 5)), photo(4, 5).astype(float), {}, "uint8"),
        (np.ones((4, 5)), photo(4, 5), {"fov": 1}, "2 to 140 degrees"),
        (np.ones((4, 5)), photo(4, 5), {"max_points": 0}, "at least 1"),
        (np.zeros((4, 5)), photo(4, 5), {}, "no pixel"),
    ],
)
def test_what_cannot_be_placed_is_refused(depth, rgb, options, message):
    with pytest.raises(ValueError, match=message):
        back_project(depth, rgb, **options)


@pytest.fixture(params=[False, True], ids=["points", "mesh"])
def cloud(request) -> PointCloud:
    return back_project(blurred_step(), photo(), mesh=request.param)


def test_ply_reads_back(cloud):
    data = to_ply(cloud)
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert f"element vertex {len(cloud.points)}" in lines
    for i in range(len(cloud.points)):
        *point, r, g, b = struct.unpack_from("<3f3B", body, 15 * i)
        assert np.array_equal(np.float32(point), cloud.points[i]) and [r, g, b] == cloud.colours[i].tolist()
    rest = body[15 * len(cloud.points) :]
    if cloud.triangles is None:
        assert not rest and "element face" not in head.decode()
    else:
        assert f"element face {len(cloud.triangles)}" in lines and len(rest) == 13 * len(cloud.triangles)
        assert list(struct.unpack_from("<B3i", rest, 13 * 7)) == [3, *cloud.triangles[7]]
