"""A depth map as points or a surface in space, and the files that other programs read: PLY and GLB."""

import json
import math
import struct
from dataclasses import dataclass

import numpy as np

MAX_POINTS = 250_000  # what a browser turns smoothly
EDGE = 0.06  # relative step of depth between neighbours from which the surface is torn
GLB_MAGIC, GLB_JSON, GLB_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
FLOAT, UINT, POINTS, TRIANGLES = 5126, 5125, 0, 4
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points seen by a camera at the origin: x to the right, y up, looking along -z (as glTF has it)."""

    points: np.ndarray  # (M, 3) float32, in the unit of the depth map
    colours: np.ndarray  # (M, 3) uint8 sRGB
    triangles: np.ndarray | None = None  # (T, 3) uint32 indices of points, front sides counter-clockwise


def back_project(
    depth: np.ndarray,
    rgb: np.ndarray,
    fov: float = 60.0,
    max_points: int = MAX_POINTS,
    edge: float | None = EDGE,
    mesh: bool = False,
) -> PointCloud:
    """Project every pixel of a depth map into space, coloured by the photo. Pixels without depth (0, nan) are left out.

    Args:
        depth: (H, W), along the axis of a pinhole camera, which passes through the middle.
        rgb: (H, W, 3) uint8.
        fov: Horizontal field of view in degrees, 5 to 170.
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
    focal = depth.shape[1] / (2 * math.tan(math.radians(fov) / 2))  # pixels
    x = (columns + 0.5 - depth.shape[1] / 2) / focal
    y = -(rows + 0.5 - depth.shape[0] / 2) / focal
    points = np.stack([z * x, z * y[:, None], -z], axis=-1)[kept].astype(np.float32)
    triangles = _triangles(z, kept, edge) if mesh else None
    return PointCloud(points, np.ascontiguousarray(rgb[np.ix_(rows, columns)][kept]), triangles)


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
    if not 5 <= fov <= 170:
        raise ValueError(f"the field of view must be 5 to 170 degrees, got {fov}; phones have about 65")
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


def to_glb(cloud: PointCloud) -> bytes:
    """Return a glTF 2.0 binary with one unlit, coloured primitive: triangles where there are any, else points."""
    # colours become linear, as glTF wants them, and float, for bytes would have to be padded to four
    linear = _to_linear(cloud.colours)
    parts = [(cloud.points.astype("<f4"), ARRAY_BUFFER), (linear.astype("<f4"), ARRAY_BUFFER)]
    triangles = cloud.triangles if cloud.triangles is not None and len(cloud.triangles) else None
    if triangles is not None:
        parts.append((triangles.astype("<u4").ravel(), ELEMENT_BUFFER))
    views, offset = [], 0
    for array, target in parts:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target})
        offset += array.nbytes  # all are multiples of four bytes: nothing to pad
    accessors = [
        {
            "bufferView": 0,
            "componentType": FLOAT,
            "count": len(cloud.points),
            "type": "VEC3",
            "min": cloud.points.min(0).tolist(),
            "max": cloud.points.max(0).tolist(),
        },
        {"bufferView": 1, "componentType": FLOAT, "count": len(cloud.points), "type": "VEC3"},
    ]
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": POINTS, "material": 0}
    if triangles is not None:
        accessors.append({"bufferView": 2, "componentType": UINT, "count": parts[2][0].size, "type": "SCALAR"})
        primitive |= {"indices": 2, "mode": TRIANGLES}
    scene = {
        "asset": {"version": "2.0", "generator": "dinodemo"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": offset}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(array.tobytes() for array, _ in parts)
    body = struct.pack("<II", len(text), GLB_JSON) + text + struct.pack("<II", len(binary), GLB_BIN) + binary
    return struct.pack("<III", GLB_MAGIC, 2, 12 + len(body)) + body


def _to_linear(colours: np.ndarray) -> np.ndarray:
    """Convert sRGB (M, 3) uint8 to linear light in [0, 1] (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    table = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return table[colours].astype(np.float32)
