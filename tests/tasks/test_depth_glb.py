"""The surface's file, opened by another program's reader and by the letter of the specification."""

import io
import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from dinodemo.tasks.depth.glb import NO_SURFACE, to_glb
from dinodemo.tasks.depth.pointcloud import PointCloud, back_project


def photo(height=20, width=30):
    """Return a photo whose colour tells the place: red the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([8 * columns, 8 * rows, np.full_like(rows, 60)], axis=-1).astype(np.uint8)


@pytest.fixture(params=[(20, 30), (31, 23)], ids=["wide", "odd and upright"])
def surface(request):
    depth = np.linspace(3, 2, request.param[0], dtype=np.float32)[:, None] + np.zeros(request.param, np.float32)
    depth[:, request.param[1] // 2 :] += 4  # a step, where it is cut
    rgb = photo(*request.param)
    return back_project(depth, rgb, 65, mesh=True), rgb


def test_another_reader_finds_the_same_surface(surface):
    cloud, rgb = surface
    opened = trimesh.load(io.BytesIO(to_glb(cloud, rgb)), file_type="glb", process=False)
    (mesh,) = opened.geometry.values()
    np.testing.assert_allclose(mesh.vertices, cloud.points, rtol=1e-6)
    assert np.array_equal(mesh.faces, cloud.triangles)
    np.testing.assert_allclose(mesh.bounds, [cloud.points.min(0), cloud.points.max(0)], rtol=1e-6)
    texture = mesh.visual.material.baseColorTexture
    assert texture.format == "JPEG" and texture.size == rgb.shape[1::-1]
    assert np.abs(np.asarray(texture).astype(int) - rgb).mean() < 6
    # trimesh counts v from the bottom
    u, v = mesh.visual.uv.T
    columns, rows = u * rgb.shape[1] - 0.5, (1 - v) * rgb.shape[0] - 0.5
    np.testing.assert_allclose(cloud.colours[:, 0], 8 * columns, atol=0.01)
    np.testing.assert_allclose(cloud.colours[:, 1], 8 * rows, atol=0.01)


def test_no_triangle_crosses_the_step(surface):
    cloud, rgb = surface
    depth = -cloud.points[cloud.triangles][..., 2]
    assert (np.ptp(depth, axis=1) < 0.13 * depth.min(1)).all()
    height, width = rgb.shape[:2]
    assert len(cloud.triangles) == 2 * (height - 1) * (width - 2)  # one column of cells is missing


def test_it_is_a_binary_as_gltf_2_has_it(surface):
    cloud, rgb = surface
    data = to_glb(cloud, rgb)
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    scene = json.loads(data[20 : 20 + size])
    rest, kind = struct.unpack_from("<I4s", data, 20 + size)
    binary = data[28 + size :]
    assert kind == b"BIN\0" and rest == len(binary) and 0 <= rest - scene["buffers"][0]["byteLength"] < 4
    assert "uri" not in json.dumps(scene)  # all of it is inside
    for accessor, width in zip(scene["accessors"], (12, 8, 4), strict=True):
        view = scene["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == accessor["count"] * width
    position = scene["accessors"][scene["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert np.array_equal(np.float32(position["min"]), cloud.points.min(0))
    assert np.array_equal(np.float32(position["max"]), cloud.points.max(0))
    view = scene["bufferViews"][scene["images"][0]["bufferView"]]
    jpeg = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    assert jpeg[:2] == b"\xff\xd8" and jpeg[-2:] == b"\xff\xd9" and b"Exif" not in jpeg


def test_large_textures_are_made_smaller():
    depth = np.ones((300, 400), np.float32)
    cloud = back_project(depth, np.zeros((300, 400, 3), np.uint8), mesh=True, max_points=100)
    opened = trimesh.load(io.BytesIO(to_glb(cloud, np.zeros((3000, 4000, 3), np.uint8))), file_type="glb")
    (mesh,) = opened.geometry.values()
    assert mesh.visual.material.baseColorTexture.size == (2048, 1536)
    assert isinstance(mesh.visual.material.baseColorTexture, Image.Image)


def test_without_any_triangle_there_is_no_surface():
    one = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), np.zeros((1, 2), np.float32)
    for triangles in (None, np.empty((0, 3), np.uint32)):
        with pytest.raises(ValueError, match=NO_SURFACE):
            to_glb(PointCloud(*one, triangles), photo())
