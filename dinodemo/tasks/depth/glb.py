"""A surface with the photo as its texture, as a glTF 2.0 binary (GLB) that any viewer opens."""

import io
import json
import struct

import numpy as np
from PIL import Image

from ...io.images import LONGEST_SIDE, fit_within
from .pointcloud import PointCloud

GLB_MAGIC, GLB_JSON, GLB_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
FLOAT, UINT, TRIANGLES = 5126, 5125, 4
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
LINEAR, TRILINEAR, CLAMP = 9729, 9987, 33071  # of textures
QUALITY = 90  # of the texture, JPEG
NO_SURFACE = "nothing is left of the surface: it is cut everywhere at steps of depth; take the points instead"


def to_glb(cloud: PointCloud, rgb: np.ndarray) -> bytes:
    """Return a surface with its photo as texture: a glTF 2.0 binary of one unlit mesh in which nothing is linked.

    Args:
        cloud: With triangles, of `back_project(..., mesh=True)`.
        rgb: (H, W, 3) uint8 sRGB; of more than 2048 pixels along the longer side it is made smaller.

    Raises:
        ValueError: There is no triangle.
    """
    if cloud.triangles is None or not len(cloud.triangles):
        raise ValueError(NO_SURFACE)
    uv = np.clip(cloud.uv, 0, 1)
    parts = [
        (cloud.points.astype("<f4").tobytes(), ARRAY_BUFFER),
        (uv.astype("<f4").tobytes(), ARRAY_BUFFER),
        (cloud.triangles.astype("<u4").tobytes(), ELEMENT_BUFFER),
        (_texture(rgb), None),  # the last: all before are multiples of four bytes
    ]
    views: list[dict] = []
    offset = 0
    for content, target in parts:
        view = {"buffer": 0, "byteOffset": offset, "byteLength": len(content)}
        views.append(view | ({"target": target} if target else {}))
        offset += len(content)
    binary = b"".join(content for content, _ in parts)
    binary += b"\0" * (-len(binary) % 4)
    text = json.dumps(_scene(cloud, views, offset), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), GLB_JSON) + text + struct.pack("<II", len(binary), GLB_BIN) + binary
    return struct.pack("<III", GLB_MAGIC, 2, 12 + len(body)) + body


def _scene(cloud: PointCloud, views: list[dict], size: int) -> dict:
    """Return the description of the binary part, `size` bytes with these views of it."""
    count, corners = len(cloud.points), 3 * len(cloud.triangles if cloud.triangles is not None else ())
    ends = {"min": cloud.points.min(0).tolist(), "max": cloud.points.max(0).tolist()}
    # viewers without the extension for unlit surfaces should show something like the photo, not metal
    look = {"baseColorTexture": {"index": 0}, "metallicFactor": 0, "roughnessFactor": 1}
    return {
        "asset": {"version": "2.0", "generator": "dinodemo"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "mode": TRIANGLES, "material": 0}
                ]
            }
        ],
        "materials": [{"pbrMetallicRoughness": look, "extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": LINEAR, "minFilter": TRILINEAR, "wrapS": CLAMP, "wrapT": CLAMP}],
        "images": [{"bufferView": 3, "mimeType": "image/jpeg"}],
        "accessors": [
            {"bufferView": 0, "componentType": FLOAT, "count": count, "type": "VEC3", **ends},
            {"bufferView": 1, "componentType": FLOAT, "count": count, "type": "VEC2"},
            {"bufferView": 2, "componentType": UINT, "count": corners, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": size}],
    }


def _texture(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(fit_within(rgb, LONGEST_SIDE)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
