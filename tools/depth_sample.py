"""Render the sample of pairs that a depth probe can be tried on: four rooms of simple bodies, three views of each.

    python tools/depth_sample.py        # writes assets/depth

Every pixel's depth is known from the ray that made it. Textures are drawn here, but for two photos that are in the
public domain (CC0), which hang on the walls.
"""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "assets" / "depth"
SIZE, SCALE = (288, 384), 2  # of a photo; rays a pixel both ways
FOV = 70.0  # along the longer side, degrees
VIEWS = 3
QUALITY = 82  # JPEG
POSTERS = ("dandelions.jpg", "cat_chelsea.jpg")


@dataclass(frozen=True)
class Box:
    """A box with its sides along the axes: low and high corner in metres (x right, y up, z into the room)."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: tuple[float, float, float]
    texture: str = "wood"


@dataclass(frozen=True)
class Room:
    """A room, what stands in it, and its colours."""

    name: str
    size: tuple[float, float, float]  # width, height, length, metres
    wall: tuple[float, float, float]
    floor: str
    boxes: tuple[Box, ...]
    balls: tuple[tuple[float, float, float, float], ...] = ()  # x, y, z, radius


def table(x: float, z: float, width: float, depth: float, height: float, colour) -> tuple[Box, ...]:
    """Return a table: its top and four legs."""
    legs = [(x + a, z + b) for a in (0.05, width - 0.11) for b in (0.05, depth - 0.11)]
    top = Box((x, height - 0.05, z), (x + width, height, z + depth), colour)
    return (top, *(Box((u, 0, w), (u + 0.06, height - 0.05, w + 0.06), colour) for u, w in legs))


WOOD, DARK, WHITE, RED, BLUE, GREEN = (
    (0.62, 0.43, 0.26), (0.30, 0.20, 0.13), (0.85, 0.85, 0.82), (0.62, 0.20, 0.16), (0.22, 0.34, 0.55),
    (0.30, 0.45, 0.28),
)  # fmt: skip
ROOMS = (
    Room("study", (4.0, 2.6, 5.5), (0.83, 0.79, 0.70), "planks",
         (*table(0.5, 3.4, 1.5, 0.8, 0.75, WOOD), Box((3.3, 0, 2.2), (3.95, 1.9, 3.4), DARK),
          Box((0.9, 0.75, 3.6), (1.4, 1.15, 3.75), DARK, "plain"), Box((1.0, 0, 2.6), (1.5, 0.45, 3.1), RED, "cloth")),
         ((2.6, 0.22, 4.3, 0.22),)),
    Room("kitchen", (3.4, 2.5, 4.6), (0.78, 0.84, 0.84), "tiles",
         (Box((0, 0, 3.9), (3.4, 0.9, 4.6), WHITE, "plain"), Box((0, 1.5, 4.2), (2.0, 2.2, 4.6), WHITE),
          *table(1.1, 2.0, 1.2, 0.8, 0.76, WOOD), Box((2.7, 0, 2.9), (3.4, 1.9, 3.6), WHITE, "plain"),
          Box((0.5, 0, 1.9), (0.9, 0.45, 2.3), WOOD)),
         ((1.6, 0.86, 2.4, 0.10), (1.9, 0.84, 2.2, 0.08))),
    Room("living room", (5.2, 2.7, 6.5), (0.80, 0.72, 0.66), "planks",
         (Box((0.2, 0, 2.2), (1.1, 0.42, 4.6), BLUE, "cloth"), Box((0.2, 0.42, 2.2), (0.45, 0.85, 4.6), BLUE, "cloth"),
          *table(1.7, 3.0, 0.8, 1.1, 0.42, DARK), Box((1.8, 0, 5.9), (3.8, 0.5, 6.4), WOOD),
          Box((2.2, 0.55, 6.2), (3.4, 1.25, 6.28), (0.06, 0.06, 0.07), "plain"),
          Box((4.5, 0, 4.2), (5.2, 2.0, 5.4), DARK)),
         ((4.1, 0.3, 3.2, 0.3),)),
    Room("corridor", (2.2, 2.5, 8.0), (0.86, 0.85, 0.80), "tiles",
         (Box((1.75, 0, 3.0), (2.2, 0.85, 4.2), WOOD), Box((0, 0, 4.8), (0.4, 1.7, 5.6), GREEN, "plain"),
          Box((0.1, 0, 2.4), (0.5, 0.5, 2.8), RED, "cloth"), Box((1.5, 0, 6.4), (2.0, 0.6, 6.9), WOOD)),
         ((1.95, 1.0, 3.5, 0.15), (0.7, 0.15, 6.0, 0.15))),
)  # fmt: skip


def noise(u: np.ndarray, v: np.ndarray, seed: int, octaves: int = 4) -> np.ndarray:
    """Return smooth noise in about [-1, 1] at places of a surface, in metres."""
    table = np.random.default_rng(seed).uniform(-1, 1, (64, 64)).astype(np.float32)
    total = np.zeros(np.shape(u), np.float32)
    for k in range(octaves):
        x, y = u * 2**k * 4, v * 2**k * 4
        i, j = np.floor(x).astype(int), np.floor(y).astype(int)
        a, b = (part * part * (3 - 2 * part) for part in (x - i, y - j))
        corner = [[table[(j + q) % 64, (i + p) % 64] for p in (0, 1)] for q in (0, 1)]
        smooth = (corner[0][0] * (1 - a) + corner[0][1] * a) * (1 - b) + (corner[1][0] * (1 - a) + corner[1][1] * a) * b
        total += smooth / 2**k
    return total / 1.9


def paint(kind: str, u: np.ndarray, v: np.ndarray, colour, seed: int) -> np.ndarray:
    """Return the colour (n, 3) of a surface at places on it, in metres."""
    base = np.broadcast_to(np.asarray(colour, np.float32), (len(u), 3))
    if kind == "planks":
        row = np.floor(v / 0.14)
        shade = 0.78 + 0.22 * np.abs(np.sin(row * 12.9898 + np.floor((u + row * 0.37) / 1.2) * 78.233))
        grain = 1 + 0.10 * noise(u * 0.6, v * 9, seed)
        gap = (v / 0.14 % 1 < 0.03) | ((u + row * 0.37) / 1.2 % 1 < 0.005)
        return np.float32([0.66, 0.46, 0.28]) * (shade * grain * np.where(gap, 0.45, 1))[:, None]
    if kind == "tiles":
        gap = (u / 0.3 % 1 < 0.03) | (v / 0.3 % 1 < 0.03)
        odd = (np.floor(u / 0.3) + np.floor(v / 0.3)) % 2
        return (
            np.float32([0.70, 0.68, 0.64]) * (np.where(gap, 0.6, 0.9 + 0.1 * odd) + 0.05 * noise(u, v, seed))[:, None]
        )
    if kind == "wood":
        return base * (1 + 0.16 * noise(u * 0.8, v * 7, seed))[:, None]
    if kind == "cloth":
        weave = 0.06 * np.sin(u * 300) * np.sin(v * 300)
        return base * (1 + weave + 0.12 * noise(u * 2, v * 2, seed))[:, None]
    return base * (1 + 0.03 * noise(u, v, seed))[:, None]


def hit_box(eye: np.ndarray, rays: np.ndarray, low, high, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance along each ray to a box (inf for none) and the axis of the side that is hit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        to = np.stack([(np.asarray(end) - eye) / rays for end in (low, high)])
    near, far = to.min(0), to.max(0)
    if inside:
        return far.min(1), far.argmin(1)
    enter, leave = near.max(1), far.min(1)
    return np.where((enter < leave) & (enter > 1e-3), enter, np.inf), near.argmax(1)


def hit_ball(eye: np.ndarray, rays: np.ndarray, ball) -> np.ndarray:
    """Return the distance along each ray to a ball, inf for none."""
    out = eye - np.asarray(ball[:3])
    a, b, c = (rays**2).sum(1), rays @ out, out @ out - ball[3] ** 2
    under = b * b - a * c
    t = (-b - np.sqrt(np.maximum(under, 0))) / a
    return np.where((under > 0) & (t > 1e-3), t, np.inf)


def nearest(room: Room, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance, body (0 is the room, then boxes, then balls) and axis of the side that each ray hits first."""
    t, axis = hit_box(eye, rays, (0, 0, 0), room.size, inside=True)
    body = np.zeros(len(rays), int)
    for k, box in enumerate(room.boxes, 1):
        found, side = hit_box(eye, rays, box.low, box.high, inside=False)
        closer = found < t
        t, axis, body = np.where(closer, found, t), np.where(closer, side, axis), np.where(closer, k, body)
    for k, ball in enumerate(room.balls, 1 + len(room.boxes)):
        found = hit_ball(eye, rays, ball)
        closer = found < t
        t, body = np.where(closer, found, t), np.where(closer, k, body)
    return t, body, axis


def colours(room: Room, at: np.ndarray, body: np.ndarray, axis: np.ndarray, posters: list, seed: int) -> np.ndarray:
    """Return the colour (n, 3) of what was hit, before light."""
    found = np.zeros((len(at), 3), np.float32)
    places = {0: (2, 1), 1: (0, 2), 2: (0, 1)}  # the two axes along a side
    for k in np.unique(body):
        for side in range(3):
            here = (body == k) & (axis == side)
            u, v = (at[here, i] for i in places[side])
            if k == 0:
                is_floor = at[here, 1] < room.size[1] / 2
                if side == 1:
                    floor, ceiling = paint(room.floor, u, v, WHITE, seed), paint("plain", u, v, (0.9, 0.9, 0.88), seed)
                    found[here] = np.where(is_floor[:, None], floor, ceiling)
                else:
                    found[here] = wall(room, at[here], side, u, v, posters, seed)
            elif k <= len(room.boxes):
                box = room.boxes[k - 1]
                found[here] = paint(box.texture, u, v, box.colour, seed + int(k))
            else:
                found[here] = paint("plain", u, v, (0.75, 0.35, 0.15), seed + int(k))
    return found


def wall(room: Room, at: np.ndarray, side: int, u: np.ndarray, v: np.ndarray, posters: list, seed: int) -> np.ndarray:
    """Return a wall's colours: plaster, a skirting board, and a photo in a frame on two of them."""
    found = paint("plain", u, v, room.wall, seed)
    found[v < 0.09] = (0.88, 0.87, 0.84)
    hung = {
        2: (room.size[0] * 0.55, at[:, 2] > room.size[2] / 2),
        0: (room.size[2] * 0.55, at[:, 0] < room.size[0] / 2),
    }
    left, there = hung[side]
    photo = posters[0 if side else 1]
    x, y = (u - left) / 0.8, (1.9 - v) / 0.6
    frame = there & (np.abs(x - 0.5) < 0.54) & (np.abs(y - 0.5) < 0.55)
    found[frame] = (0.12, 0.10, 0.09)
    inside = there & (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    found[inside] = photo[(y[inside] * photo.shape[0]).astype(int), (x[inside] * photo.shape[1]).astype(int)]
    return found


def light(room: Room, at: np.ndarray, body: np.ndarray, axis: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Return how bright each place is: a lamp below the ceiling with its shadows, and light from everywhere."""
    lamp = np.array([room.size[0] * 0.45, room.size[1] - 0.25, room.size[2] * 0.45])
    normal = np.eye(3)[axis]
    for k, ball in enumerate(room.balls, 1 + len(room.boxes)):
        normal[body == k] = (at[body == k] - ball[:3]) / ball[3]
    normal *= np.sign(((eye - at) * normal).sum(1, keepdims=True))
    to = lamp - at
    away = np.linalg.norm(to, axis=1)
    lambert = np.maximum((to * normal).sum(1) / away, 0)
    start = at + normal * 2e-3
    shadow = np.ones(len(at))
    for turn in range(6):  # a lamp of some size has soft shadows
        spot = lamp + 0.18 * np.array([np.cos(turn * 1.05), 0, np.sin(turn * 1.05)])
        for box in room.boxes:
            blocked = hit_box_from(start, spot - start, box.low, box.high)
            shadow -= blocked / 6
    edge = np.minimum.reduce([at[:, i] for i in (0, 2)] + [room.size[i] - at[:, i] for i in (0, 2)] + [at[:, 1] + 0.1])
    everywhere = 0.42 * (0.75 + 0.25 * np.clip(edge / 0.5, 0, 1))
    return everywhere + 1.5 * np.clip(shadow, 0, 1) * lambert / (1 + 0.25 * away**2)


def hit_box_from(starts: np.ndarray, rays: np.ndarray, low, high) -> np.ndarray:
    """Return whether a box lies between each start and the end of its ray."""
    with np.errstate(divide="ignore", invalid="ignore"):
        to = np.stack([(np.asarray(end) - starts) / rays for end in (low, high)])
    enter, leave = to.min(0).max(1), to.max(0).min(1)
    return (enter < leave) & (leave > 1e-4) & (enter < 1)


def view(room: Room, number: int) -> tuple[np.ndarray, float, float]:
    """Return where the camera of a view stands, and by how much it is turned aside and down, in radians."""
    rng = np.random.default_rng([len(room.name), number])
    eye = np.array([room.size[0] * rng.uniform(0.35, 0.65), rng.uniform(1.35, 1.65), rng.uniform(0.25, 0.9)])
    return eye, rng.uniform(-0.22, 0.22), rng.uniform(0.12, 0.30)


def render(room: Room, number: int, posters: list) -> tuple[np.ndarray, np.ndarray]:
    """Return a view's photo (H, W, 3) uint8 and its depth along the camera's axis (H / 2, W / 2) in metres."""
    eye, turn, pitch = view(room, number)
    height, width = SIZE[0] * SCALE, SIZE[1] * SCALE
    focal = max(height, width) / (2 * np.tan(np.radians(FOV) / 2))
    v, u = np.mgrid[:height, :width]
    local = np.stack([(u + 0.5 - width / 2) / focal, (height / 2 - v - 0.5) / focal, np.ones(u.shape)], -1).reshape(
        -1, 3
    )
    down = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    aside = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    rays = local @ (aside @ down).T
    t, body, axis = nearest(room, eye, rays)  # rays go one metre along the axis, so that t is the depth
    at = eye + t[:, None] * rays
    seed = 10 * len(room.name)
    lit = colours(room, at, body, axis, posters, seed) * light(room, at, body, axis, eye)[:, None]
    picture = cv2.resize(lit.reshape(height, width, 3).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
    picture = np.clip(picture / (1 + 0.25 * picture), 0, 1) ** (1 / 1.5)
    grain = np.random.default_rng(number).normal(0, 0.006, picture.shape)
    rgb = (np.clip(picture + grain, 0, 1) * 255).round().astype(np.uint8)
    return rgb, t.reshape(height, width)[SCALE // 2 :: 2 * SCALE, SCALE // 2 :: 2 * SCALE]


def main() -> int:
    """Write photos, depth maps in millimetres and depth.json; returns the exit status."""
    posters = [
        np.asarray(Image.open(ROOT / "assets" / name).convert("RGB").resize((240, 180))) / 255 for name in POSTERS
    ]
    posters = [np.float32(photo) ** 1.5 for photo in posters]
    for folder in ("rgb", "depth"):
        (TARGET / folder).mkdir(parents=True, exist_ok=True)
    rows, total = [], 0
    for room in ROOMS:
        for number in range(1, VIEWS + 1):
            rgb, depth = render(room, number, posters)
            name = f"{room.name.replace(' ', '_')}_{number}"
            for path, array, kind, options in (
                (f"rgb/{name}.jpg", rgb, "JPEG", {"quality": QUALITY}),
                (f"depth/{name}.png", np.rint(1000 * depth).astype(np.uint16), "PNG", {"optimize": True}),
            ):
                buffer = io.BytesIO()
                Image.fromarray(array).save(buffer, kind, **options)
                (TARGET / path).write_bytes(buffer.getvalue())
                total += len(buffer.getvalue())
            rows.append({"rgb": f"rgb/{name}.jpg", "depth": f"depth/{name}.png", "scene": room.name})
    (TARGET / "depth.json").write_text(json.dumps({"metres_per_unit": 0.001, "pairs": rows}, indent=1) + "\n")
    print(f"{len(rows)} pairs, {total / 1000:.0f} kB, in {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
