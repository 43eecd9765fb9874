"""Floors and walls that a pinhole camera sees come out of the depth map flat, upright and of their size."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo, load_photo
from dinodemo.tasks.depth.camera import camera_words, field_of_view, place
from dinodemo.tasks.depth.options import FOV
from dinodemo.tasks.depth.pointcloud import back_project
from dinodemo.web.i18n import translate

HEIGHT, WALL, PITCH = 1.5, 6.0, math.radians(20)  # metres above the floor, to the wall; the camera looks down


def room(size: tuple[int, int], focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Render a floor and a wall by exact pinhole projection: depth along the axis, and where the wall is."""
    v, _ = np.mgrid[: size[0], : size[1]]
    down = (v + 0.5 - size[0] / 2) / focal  # of a ray that goes one metre along the axis
    floor = HEIGHT / np.maximum(math.sin(PITCH) + down * math.cos(PITCH), 1e-9)
    wall = WALL / (math.cos(PITCH) - down * math.sin(PITCH))
    return np.minimum(floor, wall).astype(np.float32), wall < floor


def fit_plane(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return a plane's unit normal, its distance from the camera, and the largest residual over the extent."""
    middle = points.mean(0)
    _, _, axes = np.linalg.svd(points.astype(np.float64) - middle, full_matrices=False)
    residual = np.abs((points - middle) @ axes[2]).max() / np.ptp(points, axis=0).max()
    return axes[2], abs(float(middle @ axes[2])), float(residual)


@pytest.mark.parametrize("size", [(120, 160), (160, 120)], ids=["wide", "upright"])
@pytest.mark.parametrize("fov", [30, 65, 100])
def test_floor_and_wall_stay_flat_and_at_a_right_angle(size, fov):
    focal = 80 / math.tan(math.radians(fov) / 2)
    depth, is_wall = room(size, focal)
    rgb = np.repeat(np.where(is_wall, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    cloud = back_project(depth, rgb, fov)
    wall = cloud.colours[:, 0] == 255
    assert wall.sum() > 500 and (~wall).sum() > 500
    (up, height, bent), (out, distance, curved) = fit_plane(cloud.points[~wall]), fit_plane(cloud.points[wall])
    assert bent < 1e-3 and curved < 1e-3
    assert height == pytest.approx(HEIGHT, rel=1e-3) and distance == pytest.approx(WALL, rel=1e-3)
    assert abs(float(up @ out)) < 1e-3


def test_a_wrong_angle_is_seen_at_the_corner():
    depth, is_wall = room((120, 160), 80 / math.tan(math.radians(65) / 2))
    rgb = np.repeat(np.where(is_wall, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    cloud = back_project(depth, rgb, 90)
    up, out = (fit_plane(cloud.points[(cloud.colours[:, 0] == 255) == which])[0] for which in (False, True))
    assert abs(float(up @ out)) > 0.05


def taken(size: tuple[int, int], orientation: int = 1, millimetres: int = 26) -> bytes:
    """Return a grey JPEG of (width, height) as a phone writes it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = millimetres
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 90, 90)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("longest", [None, 80])
def test_a_floor_is_right_with_the_focal_length_of_the_file(orientation, longest):
    """26 mm before film of 43.27 mm diagonal: 0.601 of the picture's diagonal, 250 pixels."""
    photo = load_photo(taken((200, 150), orientation), longest=longest)
    assert photo.size[0] > photo.size[1] if orientation == 6 else photo.size[0] < photo.size[1]
    focal = 26 / math.hypot(36, 24) * math.hypot(*photo.size)
    depth, is_wall = room(photo.size, focal)
    v, u = np.nonzero(~is_wall & (depth < 5))
    points = place(depth[v, u], v, u, photo.size, field_of_view(photo))
    _, height, bent = fit_plane(points)
    assert bent < 1e-3 and height == pytest.approx(HEIGHT, rel=2e-3)


def test_where_the_field_of_view_is_from_is_said():
    photo = load_photo(taken((200, 150)))
    assert camera_words(photo, field_of_view(photo)) == (
        "Focal length from the photo: 26 mm (35 mm equivalent), 67.3° along the longer side."
    )
    by_hand = camera_words(photo, 50.0)
    assert by_hand.startswith("Field of view set by hand: 50.0°") and "67.3°" in by_hand
    plain = Photo(np.zeros((30, 40, 3), np.uint8))
    assert field_of_view(plain) == FOV.default and "65° along the longer side are assumed" in camera_words(plain, 65.0)


@pytest.mark.parametrize("fov", [FOV.default, 67.3, 50.0])
@pytest.mark.parametrize("known", [True, False])
def test_it_is_said_in_korean(fov, known):
    photo = load_photo(taken((200, 150))) if known else Photo(np.zeros((30, 40, 3), np.uint8))
    text = translate(camera_words(photo, fov), "ko")
    assert not any(letter.isascii() and letter.isalpha() for letter in text.replace("mm", "")), text
