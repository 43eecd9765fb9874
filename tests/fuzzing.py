"""A corpus of sound files, ways to damage them, and the functions through which the app reads them."""

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pillow_heif
from PIL import Image
from safetensors.numpy import save as save_tensors

Reader = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """Hold one damaged file: what it was, its bytes, and who reads it."""

    name: str
    suffix: str
    content: bytes
    read: Reader


# sound files


def _pixels(height: int = 24, width: int = 32, channels: int = 3, kind=np.uint8) -> np.ndarray:
    top = np.iinfo(kind).max
    values = np.random.default_rng(3).integers(0, top, (height, width, channels), dtype=kind)
    return values[..., 0] if channels == 1 else values


def _picture(kind: str, pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    """Return a sound picture of every kind that is read."""
    rgb, rgba, grey = _pixels(), _pixels(channels=4), _pixels(channels=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    animated = [Image.fromarray(np.roll(rgb, i, 0)) for i in range(3)]
    gif = io.BytesIO()
    animated[0].save(gif, "GIF", save_all=True, append_images=animated[1:])
    found = {
        "a.jpg": _picture("JPEG", rgb, exif=exif),
        "progressive.jpg": _picture("JPEG", rgb, progressive=True),
        "a.png": _picture("PNG", rgba),
        "deep.png": _picture("PNG", _pixels(channels=1, kind=np.uint16)),
        "a.webp": _picture("WEBP", rgb),
        "a.gif": gif.getvalue(),
        "a.bmp": _picture("BMP", rgb),
        "plain.tif": _picture("TIFF", rgb),
        "lzw.tif": _picture("TIFF", rgb, compression="tiff_lzw"),
        "deflate.tif": _picture("TIFF", grey, compression="tiff_adobe_deflate"),
        "jpeg.tif": _picture("TIFF", rgb, compression="jpeg"),
        "a.jp2": _picture("JPEG2000", rgb),
        "a.ppm": _picture("PPM", rgb),
        "a.ico": _picture("ICO", rgba),
        "a.avif": _picture("AVIF", rgb),
    }
    heic = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(heic, quality=80)
    return found | {"a.heic": heic.getvalue()}


def masks() -> dict[str, bytes]:
    """Return sound masks: grey, opaque where the thing is, and of class numbers."""
    marked = (_pixels(channels=1) > 100) * np.uint8(255)
    palette = Image.fromarray((marked > 0).astype(np.uint8)).convert("P")
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    alpha = np.dstack([np.zeros((24, 32, 3), np.uint8), marked])
    return {"grey.png": _picture("PNG", marked), "alpha.png": _picture("PNG", alpha), "classes.png": stream.getvalue()}


def depth_maps() -> dict[str, bytes]:
    """Return sound depth maps of every kind."""
    metres = np.linspace(1, 4, 24 * 32, dtype=np.float32).reshape(24, 32)
    millimetres, npy = (metres * 1000).astype(np.uint16), io.BytesIO()
    np.save(npy, metres)
    return {
        "depth.png": _picture("PNG", millimetres),
        "depth.tif": _picture("TIFF", metres),
        "depth.npy": npy.getvalue(),
        "depth.exr": _exr(metres),
        "depth.pgm": b"P5\n32 24\n65535\n" + millimetres.astype(">u2").tobytes(),
        "depth.pfm": b"Pf\n32 24\n-1.0\n" + metres.astype("<f4").tobytes(),
    }


def _exr(metres: np.ndarray) -> bytes:
    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(value)) + value

    height, width = metres.shape
    header = struct.pack("<II", 20000630, 2)
    header += attribute("channels", "chlist", b"Z\0" + struct.pack("<iIii", 2, 0, 1, 1) + b"\0")
    header += attribute("compression", "compression", b"\0")
    header += attribute("dataWindow", "box2i", struct.pack("<4i", 0, 0, width - 1, height - 1)) + b"\0"
    lines = [struct.pack("<iI", y, width * 4) + metres[y].tobytes() for y in range(height)]
    starts = np.cumsum([len(header) + 8 * height, *map(len, lines[:-1])])
    return header + struct.pack(f"<{height}Q", *starts.tolist()) + b"".join(lines)


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def archives() -> dict[str, bytes]:
    """Return sound zips: photos, photos with depth, photos with masks."""
    photo, depth = _picture("JPEG", _pixels()), depth_maps()
    table = json.dumps({"metres_per_unit": 0.001, "invalid_value": 0}).encode()
    return {
        "photos.zip": _zip({"cats/a.jpg": photo, "dogs/b.png": _picture("PNG", _pixels())}),
        "depth.zip": _zip(
            {
                "rgb/a.jpg": photo,
                "depth/a.png": depth["depth.png"],
                "rgb/b.jpg": photo,
                "depth/b.npy": depth["depth.npy"],
                "depth.json": table,
            }
        ),
        "masks.zip": _zip({"images/a.jpg": photo, "masks/a.png": masks()["classes.png"]}),
    }


def videos(folder: Path) -> dict[str, bytes]:
    """Return a sound short video."""
    from dinodemo.io.video import write_video

    frames = [np.roll(_pixels(48, 64), i, 1) for i in range(6)]
    return {"a.mp4": write_video(folder / "sound.mp4", frames, 5).read_bytes(), "a.gif": pictures()["a.gif"]}


def tensor_files(folder: Path) -> dict[str, bytes]:
    """Return sound files of what is trained or fitted here: a depth probe, a segmentation head, a PCA basis."""
    import torch

    from dinodemo.engine.features import Features
    from dinodemo.tasks.pca.basis import PatchPCA

    patches = np.random.default_rng(1).normal(size=(6, 8, 32)).astype(np.float32)
    features = Features(
        cls=patches[0, 0],
        patches=patches,
        registers=patches[0, :0],
        image_size=(84, 112),
        input_size=(84, 112),
        backbone="b",
        patch_norms=np.ones((6, 8), np.float32),
    )
    PatchPCA(foreground=None).fit([features]).save(folder / "basis.npz")
    head = {"decode_head.conv_depth.weight": torch.rand(256, 768, 1, 1), "decode_head.conv_depth.bias": torch.rand(256)}
    torch.save({"state_dict": head}, folder / "dinov2_vits14_nyu_linear_head.pth")
    ready = Path(__file__).parents[1] / "weights" / "depth_rooms_lin4-2_dinov2-small-offline.safetensors"
    return {
        "basis.npz": (folder / "basis.npz").read_bytes(),
        "probe.safetensors": ready.read_bytes(),
        "head.safetensors": save_tensors({"weight": patches}, {"card": json.dumps({"format": "?"})}),
        "nyu.pth": (folder / "dinov2_vits14_nyu_linear_head.pth").read_bytes(),
    }


# readers: the very functions that the page calls


def readers(folder: Path) -> dict[str, Reader]:
    """Return who reads which kind; folder is where they may write."""
    from dinodemo.io.images import Photo, load_photo, shrink
    from dinodemo.io.video import read_frames
    from dinodemo.tasks.depth import DepthProbe
    from dinodemo.tasks.depth import read_pairs as read_depth_pairs
    from dinodemo.tasks.depth.depthmap import read_values
    from dinodemo.tasks.depth.files import Entry
    from dinodemo.tasks.finetune.photo_store import unpack
    from dinodemo.tasks.pca.basis import PatchPCA
    from dinodemo.tasks.segmentation.masks import read_mask_file
    from dinodemo.tasks.segmentation_head import SegmentationHead
    from dinodemo.tasks.segmentation_head import read_pairs as read_mask_pairs
    from dinodemo.web.painter import read_drawing

    photo = Photo(_pixels(), "photo.png")
    return {
        "picture": lambda path: shrink(load_photo(path)),
        "mask": lambda path: read_mask_file(path, photo),
        "painted": lambda path: read_drawing({"mask": _data_url(path.read_bytes())}, photo),
        "depth": lambda path: read_values(Entry(PurePosixPath(path.name), path.read_bytes, path)),
        "photos.zip": lambda path: unpack(path, folder / "unpacked", 50_000_000),
        "depth.zip": lambda path: read_depth_pairs(path, out=folder / "pairs"),
        "masks.zip": lambda path: read_mask_pairs(path, out=folder / "masks"),
        "labelled.zip": _read_labelled,
        "video": read_frames,
        "basis.npz": PatchPCA.load,
        "probe.safetensors": DepthProbe.load,
        "head.safetensors": SegmentationHead.load,
        "nyu.pth": lambda path: DepthProbe.from_meta(path, "nyu"),
    }


def _read_labelled(path: Path) -> None:
    from dinodemo.tasks.classify.dataset import read_labelled
    from dinodemo.tasks.retrieval.sources import HELD_LIMITS

    with read_labelled(path, limits=HELD_LIMITS) as found:
        for item in found.items:
            item.read()


def _data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


# damage


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the file with one to four faults."""
    for _ in range(rng.integers(1, 5)):
        content = WAYS[rng.integers(len(WAYS))](content, rng) or b"\0"
    return content


def _truncate(content: bytes, rng) -> bytes:
    return content[: rng.integers(0, len(content) + 1)]


def _flip(content: bytes, rng) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(0, len(content), rng.integers(1, 12)):
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def _overwrite(content: bytes, rng) -> bytes:
    at, size = rng.integers(0, len(content)), rng.integers(1, 64)
    filler = (b"\0", b"\xff", rng.bytes(1))[rng.integers(3)]
    return content[:at] + filler * size + content[at + size :]


def _remove(content: bytes, rng) -> bytes:
    at = rng.integers(0, len(content))
    return content[:at] + content[at + rng.integers(1, 64) :]


def _repeat(content: bytes, rng) -> bytes:
    at, size = rng.integers(0, len(content)), rng.integers(1, 512)
    return content[:at] + content[at : at + size] * int(rng.integers(2, 50)) + content[at:]


def _lie(content: bytes, rng) -> bytes:
    """Write an enormous or odd number where headers keep sizes."""
    number = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)[rng.integers(7)]
    layout, most = ((">I", 2**32 - 1), ("<I", 2**32 - 1), (">H", 2**16 - 1), ("<H", 2**16 - 1))[rng.integers(4)]
    packed = struct.pack(layout, number & most)
    at = rng.integers(0, min(len(content), 128))
    return content[:at] + packed + content[at + len(packed) :]


def _lie_in_png(content: bytes, rng) -> bytes:
    """Change a PNG's size and keep its checksum right; anything else loses its first bytes."""
    if not content.startswith(b"\x89PNG") or len(content) < 33:
        return content[rng.integers(1, 9) :]
    sizes = [int(2 ** rng.uniform(0, 31)) for _ in range(2)]
    header = content[12:16] + struct.pack(">II", *sizes) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


WAYS = (_truncate, _flip, _overwrite, _remove, _repeat, _lie, _lie_in_png)


def cases(count: int, folder: Path, seed: int = 0) -> Iterator[Case]:
    """Yield `count` damaged files, of all kinds in turn."""
    read = readers(folder)
    corpus = [("picture", name, content) for name, content in pictures().items()]
    corpus += [("mask", name, content) for name, content in masks().items()]
    corpus += [("painted", name, content) for name, content in masks().items()]
    corpus += [("depth", name, content) for name, content in depth_maps().items()]
    corpus += [(name, name, content) for name, content in archives().items()]
    corpus += [("video", name, content) for name, content in videos(folder).items()]
    corpus += [(name, name, content) for name, content in tensor_files(folder).items()]
    for number in range(count):
        kind, name, content = corpus[number % len(corpus)]
        rng = np.random.default_rng((seed, number))
        inner = name.endswith(".zip") and number // len(corpus) % 2
        content = _damage_inside(content, rng) if inner else damage(content, rng)
        yield Case(f"{number}: {kind} {name}", Path(name).name, content, read[kind])


def _damage_inside(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage the members of a zip and pack them again, so that its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return _zip({name: damage(inside, rng) if rng.random() < 0.7 else inside for name, inside in members.items()})


cv2.setNumThreads(1)
