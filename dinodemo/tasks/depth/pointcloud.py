"""A depth map as points or a surface in space, and the points' file that other programs read: PLY."""

import math
from dataclasses import dataclass

import numpy as np

from .camera import focal_pixels, place
from .options import FOV

MAX_POINTS = 250_000  # what a browser turns smoothly
EDGE = 0.06  # relative step of depth between neighbours from which the surface is torn


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points seen by a camera at the origin: x to the right, y up, looking along -z (as glTF has it)."""

    points: np.ndarray  # (M, 3) float32, in the unit of the depth map
    colours: np.ndarray  # (M, 3) uint8 sRGB
    uv: np.ndarray  # (M, 2) float32, each point's place in the photo: 0 to 1 from the left and from the top
    triangles: np.ndarray | None = None  # (T, 3) uint32 indices of points, front sides counter-clockwise


def back_project(
    depth: np.ndarray,
    rgb: np.ndarray,
    fov: float = FOV.default,
    max_points: int = MAX_POINTS,
    edge: float | None = EDGE,
    mesh: bool = False,
) -> PointCloud:
    """Project every pixel of a depth map into space, coloured by the photo. Pixels without depth (0, nan) are left out.

    Args:
        depth: (H, W), along the axis of a pinhole camera, which passes through the middle.
        rgb: (H, W, 3) uint8.
        fov: Field of view along the longer side, in degrees.
        max_points: Above it only every second, third, ... pixel is kept, both ways.
        edge: Pixels that hang between two surfaces (see `flying`) are left out; None keeps them.
        mesh: Join neighbours to triangles, unless their depths differ by more than twice `edge`.

    Returns:
        The points, in the unit of the depth, with their colours.

    Raises:
        ValueError: Sizes differ, the field of view is out of range, or the map is without any depth.
    """
    _check(depth, rgb, fov, max_points)
    step = max(1, math.ceil(math.sqrt(depth.size / max_points)))
    rows, columns = np.arange(0, depth.shape[0], step), np.arange(0, depth.shape[1], step)
    whole = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    z = whole[np.ix_(rows, columns)]
    kept = z > 0
    if edge is not None:  # found among all pixels: between those kept even a smooth floor takes large steps
        kept &= ~flying(whole, edge)[np.ix_(rows, columns)]
    if not kept.any():
        raise ValueError("no pixel of the depth map can be placed in space; it holds no depth, or only edges")
    points = place(z, rows[:, None], columns, depth.shape, fov)[kept]
    u, v = np.meshgrid((columns + 0.5) / depth.shape[1], (rows + 0.5) / depth.shape[0])
    uv = np.stack([u, v], axis=-1)[kept].astype(np.float32)
    triangles = _triangles(z, kept, edge) if mesh else None
    return PointCloud(points, np.ascontiguousarray(rgb[np.ix_(rows, columns)][kept]), uv, triangles)


def flying(depth: np.ndarray, edge: float = EDGE) -> np.ndarray:
    """Return which pixels hang between two surfaces, as a smoothed step of depth leaves them.

    Such a pixel lies between its two neighbours in a row or a column, and differs from both, in inverse depth, by more
    than `edge` of its own. Inverse depth, for there a tilted plane takes equal and small steps far away too. Pixels
    without depth (0) are no neighbours.

    Args:
        depth: (H, W).
        edge: Share of a pixel's own inverse depth, above 0.

    Returns:
        (H, W) bool.
    """
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-6), np.nan)
    torn = np.zeros(depth.shape, bool)
    for values, found in ((inverse, torn), (inverse.T, torn.T)):  # columns, then rows; `found` is a view
        step, limit = np.diff(values, axis=0), edge * values[1:-1]
        with np.errstate(invalid="ignore"):  # nan compares as False
            found[1:-1] |= (np.abs(step[:-1]) > limit) & (np.abs(step[1:]) > limit) & (step[:-1] * step[1:] > 0)
    return torn


def _triangles(z: np.ndarray, kept: np.ndarray, edge: float | None) -> np.ndarray:
    """Join the corners of every cell of the grid to two triangles: (T, 3) uint32; none across a step of depth."""
    index = np.cumsum(kept.ravel()).reshape(kept.shape) - 1
    a, b, c, d = (
        np.s_[:-1, :-1],
        np.s_[:-1, 1:],
        np.s_[1:, :-1],
        np.s_[1:, 1:],
    )  # clockwise from the top left: a b d c
    found = []
    for corners in ((a, c, b), (b, c, d)):
        depths = np.stack([z[corner] for corner in corners])
        whole = np.logical_and.reduce([kept[corner] for corner in corners])
        if edge is not None:
            low, high = depths.min(0), depths.max(0)
            whole &= (high - low) <= 2 * edge * np.maximum(low, 1e-6)
        found.append(np.stack([index[corner][whole] for corner in corners], axis=-1))
    return np.concatenate(found).astype(np.uint32)


def _check(depth: np.ndarray, rgb: np.ndarray, fov: float, max_points: int) -> None:
    if depth.ndim != 2 or rgb.shape != (*depth.shape, 3) or rgb.dtype != np.uint8:
        raise ValueError(
            f"expected depth (H, W) and a photo (H, W, 3) uint8 of one size, got {depth.shape} and {rgb.shape} "
            f"{rgb.dtype}; resize one of them"
        )
    focal_pixels(depth.shape, fov)
    if max_points < 1:
        raise ValueError(f"max_points must be at least 1, got {max_points}")


def to_ply(cloud: PointCloud) -> bytes:
    """Return a binary little-endian PLY 1.0: points with colours, and faces where there are any."""
    faces = np.empty((0, 3), np.uint32) if cloud.triangles is None else cloud.triangles
    properties = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {c}" for c in ("red", "green", "blue")
    ]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud.points)}", *properties]
    if cloud.triangles is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    vertices = np.empty(len(cloud.points), [("point", "<f4", 3), ("colour", "u1", 3)])
    vertices["point"], vertices["colour"] = cloud.points, cloud.colours
    corners = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    corners["count"], corners["corners"] = 3, faces
    return "\n".join([*lines, "end_header\n"]).encode() + vertices.tobytes() + corners.tobytes()
