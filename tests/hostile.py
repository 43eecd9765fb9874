"""Files made by hand to cost much or to confuse: headers that lie, names that lead out, values of wrong kinds."""

import functools
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator

import fuzzing
import numpy as np
from PIL import Image, TiffImagePlugin

HUGE = (1 << 31) - 1


def cases() -> Iterator[tuple[str, str, bytes]]:
    """Yield (kind of reader, file name, content)."""
    for kind in ("picture", "mask", "painted"):
        yield from ((kind, name, content) for name, content in _pictures().items())
    lists = {"million.npz": members(1_000_000)}
    yield from (("mask", name, content) for name, content in (_annotations() | _arrays() | lists).items())
    yield from (("depth", name, content) for name, content in (_arrays() | _exr_files() | _deep_pictures()).items())
    for kind in ("photos.zip", "depth.zip", "masks.zip", "labelled.zip"):
        yield from ((kind, name, content) for name, content in _archives().items())
    yield from (("video", name, content) for name, content in _videos().items())
    for kind in ("probe.safetensors", "head.safetensors"):
        yield from ((kind, name, content) for name, content in _tensors().items())
    yield from (("basis.npz", name, content) for name, content in (_npz_files() | lists).items())
    yield from (("nyu.pth", name, content) for name, content in _pth_files().items())


def png(width: int, height: int, rows: bytes, *more: tuple[bytes, bytes], bits: int = 8, colour: int = 2) -> bytes:
    """Write a PNG of any header, with further chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, bits, colour, 0, 0, 0)
    chunk = struct.Struct(">I").pack
    parts = [(b"IHDR", header), *more, (b"IDAT", rows), (b"IEND", b"")]
    packed = (chunk(len(data)) + kind + data + chunk(zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _zeros(size: int) -> bytes:
    packer = zlib.compressobj()
    whole, rest = divmod(size, 1 << 20)
    return (
        b"".join(packer.compress(bytes(1 << 20)) for _ in range(whole)) + packer.compress(bytes(rest)) + packer.flush()
    )


def _ico(inner: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def _tiff(tags: dict[int, object], width: int = 40, height: int = 30) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    return _saved(Image.new("L", (width, height)), "TIFF", tiffinfo=directory)


def _patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def _pictures() -> dict[str, bytes]:
    text = zlib.compress(bytes(50_000_000))
    deep = png(12_000, 10_000, _zeros(12_001 * 10_000 // 8), bits=1, colour=0)
    exif = Image.Exif()
    exif[0x0112] = 99
    gif = bytearray(_saved(Image.new("P", (4, 4)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    webp = bytearray(_saved(Image.new("RGB", (40, 30)), "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    avif = _saved(Image.new("RGB", (40, 30)), "AVIF")
    tiff, ispe = _tiff({}), b"ispe\0\0\0\0"
    return {
        "wide.png": png(149_999_999, 1, b""),
        "huge.png": png(HUGE, HUGE, b""),
        "negative.png": png(-1, 5, b""),
        "text.png": png(2, 2, zlib.compress(bytes(14)), (b"zTXt", b"a\0\0" + text), (b"iCCP", b"b\0\0" + text)),
        "many-chunks.png": png(2, 2, zlib.compress(bytes(14)), *[(b"tEXt", b"a\0b")] * 20_000),
        "large-1-bit.png": deep,
        "trailing.png": png(2, 2, _zeros(100_000_000)),
        "ico-in-ico.ico": _ico(_ico(b"x")),
        "huge-inside.ico": _ico(png(17_000, 17_000, b"")),
        "large-inside.ico": _ico(png(12_000, 12_500, _zeros(1000), bits=8, colour=6)),
        "gif-screen.gif": bytes(gif),
        "vp8l.webp": bytes(webp),
        "ispe.avif": _patched(avif, ispe + struct.pack(">II", 40, 30), ispe + struct.pack(">II", 65535, 65535)),
        "orientation.jpg": _saved(Image.new("RGB", (9, 7)), "JPEG", exif=exif),
        "profile.jpg": _saved(Image.new("RGB", (9, 7)), "JPEG", icc_profile=bytes(60_000)),
        "loop.tif": tiff[:4] + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),
        "no-tags.tif": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        "endless.tif": b"II*\0\x08\0\0\0\xff\xff" + bytes(60_000),
        "plain.ppm": b"P3 20000 5000 255\n" + b"1 " * 2000,
        "maxval.pgm": b"P5 40 30 70000\n" + bytes(2400),
        "digits.pbm": b"P1 " + b"9" * 100_000 + b" 1\n",
        "heif.heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + struct.pack(">I4s", HUGE, b"meta") + bytes(2000),
        "jp2.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 0, b"jp2h") + bytes(2000),
        "codestream.j2k": b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">IIII", HUGE, HUGE, 0, 0) + bytes(40),
    }  # fmt: skip


def _annotations() -> dict[str, bytes]:
    """Write annotation files with values of wrong kinds, of absurd size, nested without end."""
    image = {"id": 1, "file_name": "photo.png", "width": 32, "height": 24}
    label = {"id": 1, "name": "cat"}

    def coco(**changes: object) -> bytes:
        one = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "bbox": [1, 1, 8, 8]}
        return json.dumps({"images": [image], "categories": [label], "annotations": [one | changes]}).encode()

    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><annotations>&e9;</annotations>'
    outside = (
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>'
    )
    shape = {"label": "cat", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}
    labelme = {"shapes": [shape], "imageWidth": 32, "imageHeight": 24, "imagePath": "photo.png"}
    return {
        "nested.json": b"[" * 100_000,
        "nested-object.json": b'{"a":' * 50_000,
        "number.json": b"1" * 5_000,
        "huge-number.json": coco(segmentation=[[1e308, 1e308, -1e308, 1, 2, 3]]),
        "nan.json": coco().replace(b"9, 9]", b"NaN, Infinity]"),
        "rle-huge.json": coco(segmentation={"size": [HUGE, HUGE], "counts": [HUGE, 1]}),
        "rle-sum.json": coco(segmentation={"size": [24, 32], "counts": [1 << 40]}),
        "rle-negative.json": coco(segmentation={"size": [24, 32], "counts": [-5, 773]}),
        "rle-text.json": coco(segmentation={"size": [24, 32], "counts": "\xff~" * 1000}),
        "kinds.json": coco(segmentation="x", category_id=[], image_id={}),
        "polygon-odd.json": coco(segmentation=[[1, 2, 3]]),
        "points.json": coco(segmentation=[[5] * 400_000]),
        "lists.json": b'{"images": {}, "annotations": 7, "categories": null}',
        "labelme-kinds.json": json.dumps({**labelme, "shapes": [{**shape, "points": "x"}, 7, None]}).encode(),
        "labelme-size.json": json.dumps({**labelme, "imageWidth": 1 << 40, "imageHeight": -3}).encode(),
        "studio.json": json.dumps([{"annotations": [{"result": [{"value": {"rle": [255] * 9}}]}]}]).encode(),
        "laughs.xml": laughs.encode(),
        "outside.xml": outside.encode(),
        "deep.xml": b"<a>" * 100_000,
        "polygons.txt": b"0 " + b"0.5 " * 300_001,
        "words.txt": b"0 nan inf 1e999 -1 2\n" * 50,
    }  # fmt: skip


def _deep_pictures() -> dict[str, bytes]:
    return {
        "wide.png": png(70_000_000, 2, b"", bits=16, colour=0),
        "short.png": png(3000, 3000, _zeros(10), bits=16, colour=0),
        "colours.png": png(4, 4, zlib.compress(bytes(4 * 25)), bits=16, colour=2),
        "nothing.tif": b"MM\0*" + bytes(40),
    }


def _npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1")
    size = struct.pack("<H" if version == 1 else "<I", len(text) & (0xFFFF if version == 1 else 0xFFFFFFFF))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def _arrays() -> dict[str, bytes]:
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    header = "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n"
    return {
        "pickle.npy": pickle.dumps({"depth": [1.0]}),
        "objects.npy": objects.getvalue(),
        "huge.npy": _npy(header % ("<f8", "100000, 100000,")),
        "overflow.npy": _npy(header % ("<f8", f"{1 << 40}, {1 << 40},")),
        "negative.npy": _npy(header % ("<f4", "-1, 5,"), bytes(20)),
        "many-axes.npy": _npy(header % ("<f4", "1," * 40), bytes(4)),
        "code.npy": _npy("__import__('os').system('touch /tmp/it-ran')\n"),
        "nested.npy": _npy("(" * 5000 + ")" * 5000),
        "long-header.npy": _npy("{" + " " * 50_000_000 + "}", version=2),
        "text.npy": _npy(header % ("<U100", "3, 3,"), bytes(3600)),
        "complex.npy": _npy(header % ("<c16", "3, 3,"), bytes(144)),
        "void.npy": _npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 3), }\n", bytes(36)),
    }


def _exr_files() -> dict[str, bytes]:
    sound = fuzzing.depth_maps()["depth.exr"]
    window = b"dataWindow\0box2i\0\x10\0\0\0"
    at = sound.index(window) + len(window)
    return {
        "huge.exr": sound[:at] + struct.pack("<4i", 0, 0, HUGE, HUGE) + sound[at + 16 :],
        "turned.exr": sound[:at] + struct.pack("<4i", 5, 5, -5, -5) + sound[at + 16 :],
        "large.exr": sound[:at] + struct.pack("<4i", 0, 0, 11_999, 11_999) + sound[at + 16 :],
        "attribute.exr": sound[:8] + b"a\0b\0" + struct.pack("<I", HUGE) + sound[8:],
        "endless-name.exr": sound[:8] + b"a" * 1_000_000,
    }


def _zip(members: list[tuple[str, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return stream.getvalue()


@functools.cache
def members(count: int) -> bytes:
    """Write a zip of so many empty photos, quickly: no library would make it within a test's time."""
    names = (np.arange(count)[:, None] // 10 ** np.arange(6, -1, -1) % 10 + ord("0")).astype(np.uint8)
    photo = np.tile(np.frombuffer(b".jpg", np.uint8), (count, 1))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 11, 0)
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0)
    body = np.hstack([np.tile(np.frombuffer(local, np.uint8), (count, 1)), names, photo])
    rows = np.tile(np.frombuffer(central, np.uint8), (count, 1))
    rows[:, 42:46] = (np.arange(count, dtype="<u4") * body.shape[1]).view(np.uint8).reshape(count, 4)
    directory = np.hstack([rows, names, photo]).tobytes()
    start, size = body.size, len(directory)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), size, start, 0)
    return body.tobytes() + directory + end64 + locator + end


@functools.cache
def _archives() -> dict[str, bytes]:
    photo = fuzzing.pictures()["a.jpg"]
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    zip64 = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 60, 0)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, 0, 1)
    sound = _zip([("images/a.jpg", photo)], zipfile.ZIP_STORED)
    entry = sound.index(b"PK\1\2")
    total = struct.unpack_from("<H", sound, len(sound) - 12)[0]
    directory = sound[entry : len(sound) - 22]
    overlapping = sound[:entry] + directory * 3 + b"PK\5\6" + struct.pack(
        "<HHHHIIH", 0, 0, 3 * total, 3 * total, 3 * len(directory), entry, 0
    )  # fmt: skip
    return {
        "equal-names.zip": _zip([("images/a.jpg", b"")] * 15_000),
        "deep-names.zip": _zip([("a/" * 5000 + "b.jpg", photo)]),
        "long-names.zip": _zip([("x" * 60_000 + ".jpg", photo)]),
        "absolute.zip": _zip([("/etc/passwd.jpg", photo), ("../../a.jpg", photo), ("C:\\a.jpg", photo)]),
        "overlapping.zip": overlapping,
        "64-bit.zip": zip64 + locator + end,
        "many.zip": _zip([(f"images/{i}.jpg", b"") for i in range(21_000)], zipfile.ZIP_STORED),
        "million.zip": members(1_000_000),
        "most-that-are-listed.zip": members(175_000),  # the list is as long as it may be
        "bombs.zip": _zip([(f"images/{i}.bmp", b"BM" + bytes(30_000_000)) for i in range(12)]),
        "comment.zip": sound[:-2] + b"\xff\xff" + bytes(65_535),
        "wrong-table.zip": _zip([("rgb/a.jpg", photo), ("depth/a.png", photo), ("depth.json", b"[" * 50_000)]),
        "table-of-wrong-kinds.zip": _zip(
            [
                ("rgb/a.jpg", photo),
                ("depth/a.png", photo),
                ("depth.json", json.dumps({"metres_per_unit": [], "invalid_value": {}}).encode()),
            ]
        ),
        "masks-wrong-json.zip": _zip([("images/a.jpg", photo), ("masks/a.json", b'{"shapes": 7}')]),
        "coco-wrong.zip": _zip(
            [("images/a.jpg", photo), ("annotations.json", b'{"images": {}, "annotations": "x", "categories": null}')]
        ),
    }


def _videos() -> dict[str, bytes]:
    return {
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "list.mp4": b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n",
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "boxes.mp4": struct.pack(">I4sQ", 1, b"moov", 1 << 62) + bytes(1000),
        "ftyp.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + struct.pack(">I4s", HUGE, b"moov") + bytes(4000),
        "dash.mp4": b"\0\0\0\x18ftypdash" + b"<MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>",
        "ebml.webm": b"\x1a\x45\xdf\xa3\xff" + b"\xff" * 4000,
    }


def _safetensors(header: object, body: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def _tensors() -> dict[str, bytes]:
    def entry(start: int, end: int, shape: list, kind: str = "F32") -> dict:
        return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}

    return {
        "size.safetensors": _safetensors({}, size=(1 << 64) - 1),
        "large-header.safetensors": _safetensors({}, size=90_000_000),
        "nested.safetensors": _safetensors(b"[" * 100_000),
        "offsets.safetensors": _safetensors({"weight": entry(0, 1 << 40, [1 << 38])}),
        "backwards.safetensors": _safetensors({"weight": entry(8, 0, [2])}, bytes(8)),
        "overlap.safetensors": _safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
        "hole.safetensors": _safetensors({"a": entry(0, 8, [2]), "b": entry(16, 24, [2])}, bytes(24)),
        "shape.safetensors": _safetensors({"a": entry(0, 8, [1 << 62, 1 << 62])}, bytes(8)),
        "kind.safetensors": _safetensors({"a": entry(0, 8, [2], "X9")}, bytes(8)),
        "card.safetensors": _safetensors({"__metadata__": {"card": "[" * 50_000}, "a": entry(0, 8, [2])}, bytes(8)),
        "card-kinds.safetensors": _safetensors(
            {"__metadata__": {"card": json.dumps({"format": [], "classes": 3})}, "a": entry(0, 8, [2])}, bytes(8)
        ),
        "pickle.safetensors": pickle.dumps({"a": 1}),
    }


def _npz_files() -> dict[str, bytes]:
    arrays = _arrays()
    return {f"{name}.npz": _zip([("mean.npy", content)]) for name, content in arrays.items()} | {
        "equal.npz": _zip([("mean.npy", arrays["negative.npy"])] * 3),
        "text.npz": b"no zip",
    }


def _pth_files() -> dict[str, bytes]:
    return {
        "pickle.pth": pickle.dumps({"state_dict": {"a": 1}}),
        "deep.pth": pickle.dumps([[[[1]]]]),
        "stack.pth": b"\x80\x02" + b"(" * 1_000_000 + b".",
        "zip.pth": _zip([("archive/data.pkl", pickle.dumps({})), ("archive/version", b"3")]),
        "huge-int.pth": b"\x80\x02\x8b" + struct.pack("<i", HUGE) + b".",
    }
