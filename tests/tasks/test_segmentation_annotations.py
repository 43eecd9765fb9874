"""Masks from what annotation tools export; the same rectangle and triangle in every format."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.tasks.segmentation import shapes
from dinodemo.tasks.segmentation.annotations import read_annotations, read_class_names
from dinodemo.tasks.segmentation.masks import open_mask_file, read_mask_file

H, W = 60, 90
PHOTO = Photo(np.zeros((H, W, 3), np.uint8), "room 1.jpg")
LARGE = Photo(np.zeros((4 * H, 4 * W, 3), np.uint8), "room 1.jpg")
BOX = [10, 20, 40, 20, 40, 50, 10, 50]  # x, y of its corners
TRIANGLE = [60, 5, 85, 55, 50, 55]
CUP = np.zeros((H, W), bool)
CUP[20:50, 10:40] = True


def inside(points: list, x: float, y: float) -> bool:
    """Return whether a point lies inside a polygon: a ray to the right crosses its outline an odd number of times."""
    corners = np.reshape(points, (-1, 2))
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossings += (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return crossings % 2 == 1


CAT = np.array([[inside(TRIANGLE, x + 0.5, y + 0.5) for x in range(W)] for y in range(H)])


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def run_lengths(mask: np.ndarray, by_column: bool = True) -> list[int]:
    flat = (mask.T if by_column else mask).ravel().tolist()
    counts, value, run = [], False, 0
    for pixel in flat:
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return [*counts, run]


def compressed(counts: list[int]) -> str:
    """Write COCO's compressed run lengths, after the description of rleToString in its mask API."""
    text = ""
    for i, value in enumerate(counts):
        x = value - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


def brush(mask: np.ndarray) -> list[int]:
    """Write Label Studio's brush the long way: one value at a time, eight bits each."""
    values = np.repeat((255 * mask.astype(np.uint8)).ravel(), 4).tolist()
    bits = f"{len(values):032b}" + f"{7:05b}" + f"{0:04b}{3:04b}{7:04b}{15:04b}"
    for start in range(0, len(values), 16):
        part = values[start : start + 16]
        if len(set(part)) == 1:
            bits += "1" + "01" + f"{len(part) - 1:04b}" + f"{part[0]:08b}"
        else:
            bits += "0" + "01" + f"{len(part) - 1:04b}" + "".join(f"{v:08b}" for v in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def coco(cup, cat=None, name="room 1.jpg") -> dict:
    annotations = [{"id": 1, "image_id": 7, "category_id": 3, "segmentation": cup}]
    annotations += [{"id": 2, "image_id": 7, "category_id": 5, "segmentation": cat or [TRIANGLE]}]
    annotations += [{"id": 3, "image_id": 8, "category_id": 5, "segmentation": [BOX]}]
    return {
        "images": [
            {"id": 7, "file_name": name, "height": H, "width": W},
            {"id": 8, "file_name": "other.jpg", "height": H, "width": W},
        ],
        "categories": [{"id": 3, "name": "cup"}, {"id": 5, "name": "cat"}],
        "annotations": annotations,
    }


def labelme(**more) -> dict:
    shapes_ = [
        {"label": "cup", "points": [[10, 20], [40, 50]], "shape_type": "rectangle"},
        {"label": "cat", "points": np.reshape(TRIANGLE, (-1, 2)).tolist(), "shape_type": "polygon"},
    ]
    return {"imagePath": "..\\room 1.jpg", "imageHeight": H, "imageWidth": W, "shapes": shapes_} | more


def labelme_mask() -> dict:
    buffer = io.BytesIO()
    Image.fromarray(CUP[20:50, 10:40]).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    one = {"label": "cup", "points": [[10, 20], [40, 50]], "shape_type": "mask", "mask": mask}
    return labelme(shapes=[one, labelme()["shapes"][1]])


def label_studio(*results, name="/data/upload/1/0a1b2c3d-room%201.jpg") -> list:
    tail = {"original_width": W, "original_height": H}
    return [{"data": {"image": name}, "annotations": [{"result": [tail | {"value": v} for v in results]}]}]


def percent(points) -> list:
    return (np.reshape(points, (-1, 2)) / (W, H) * 100).tolist()


def yolo() -> str:
    lines = [(0, BOX), (1, TRIANGLE)]
    return "\n".join(
        f"{c} " + " ".join(f"{v:.6f}" for v in (np.reshape(p, (-1, 2)) / (W, H)).ravel()) for c, p in lines
    )


CVAT = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="train/room 1.jpg" width="{W}" height="{H}">
  %s
  <polygon label="cat" points="60.0,5.0;85.0,55.0;50.0,55.0"/>
  <tag label="indoor"/>
</image>
<image id="1" name="other.jpg" width="{W}" height="{H}"/>
</annotations>"""
CVAT_MASK = ",".join(map(str, run_lengths(CUP[18:52, 8:42], by_column=False)[:-1]))
POLYGON = {"points": percent(TRIANGLE), "polygonlabels": ["cat"]}
FILES = {
    "polygons.json": coco([BOX]),
    "two_parts.json": coco([[10, 20, 25, 20, 25, 50, 10, 50], [25, 20, 40, 20, 40, 50, 25, 50]]),
    "counts.json": coco({"size": [H, W], "counts": run_lengths(CUP)}),
    "compressed.json": coco({"size": [H, W], "counts": compressed(run_lengths(CUP))}),
    "folder.json": coco([BOX], name="train2017/room 1.jpg"),
    "labelme.json": labelme(),
    "labelme_mask.json": labelme_mask(),
    "studio.json": label_studio({"points": percent(BOX), "polygonlabels": ["cup"]}, POLYGON),
    "studio_box.json": label_studio(
        {"x": 1000 / W, "y": 2000 / H, "width": 3000 / W, "height": 3000 / H, "rectanglelabels": ["cup"]}, POLYGON
    ),
    "studio_brush.json": label_studio({"rle": brush(CUP), "brushlabels": ["cup"]}, POLYGON),
    "cvat.xml": CVAT % '<polygon label="cup" points="10,20;40,20;40,50;10,50"/>',
    "cvat_box.xml": CVAT % '<box label="cup" xtl="10" ytl="20" xbr="40" ybr="50"/>',
    "cvat_mask.xml": CVAT % f'<mask label="cup" rle="{CVAT_MASK}" left="8" top="18" width="34" height="34"/>',
}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("photo", [PHOTO, LARGE], ids=["same size", "larger"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_masks(name, photo, tmp_path):
    path = write(tmp_path / name, FILES[name])
    with pytest.raises(ValueError, match=r"holds 2 labels: cup \(16\.7%\), cat"):
        read_mask_file(path, photo)
    scale = photo.size[0] // H
    for label, truth, least in (("cup", CUP, 0.99), ("CAT", CAT, 0.97)):
        truth = np.kron(truth, np.ones((scale, scale), bool))
        assert iou(read_mask_file(path, photo, [label]), truth) > least


def test_yolo_lines_are_polygons_in_shares(tmp_path):
    path = write(tmp_path / "room 1.txt", yolo())
    assert np.array_equal(read_mask_file(path, PHOTO, ["0"]), CUP)
    assert iou(read_mask_file(path, PHOTO, ["1"]), CAT) > 0.98
    found = read_annotations(yolo().encode(), "room 1.txt", ["cup", "cat"])[0]
    assert [shape.label for shape in found.shapes] == ["cup", "cat"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "cup\ncat\n"),
        ("data.yaml", "path: .\nnames: [cup, 'cat']\nnc: 2\n"),
        ("data.yaml", "names:\n  0: cup\n  1: cat\ntrain: images\n"),
        ("data.yml", 'names:\n- cup\n- "cat"\n'),
    ],
)
def test_class_names_of_yolo_sets(name, text):
    assert read_class_names(text.encode(), name) == ["cup", "cat"]


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (CUP, ()),
        (CUP.astype(np.float32), ()),
        (CUP.astype(np.uint8) * 255, ()),
        (CUP[None], ()),
        (CUP[..., None], ()),
        (CUP * 3 + CAT * 8, ["3"]),
        (np.stack([CAT, CUP]), ["2"]),
        (np.stack([CAT, CUP], axis=2).astype(np.uint8), ["2"]),
    ],
)
def test_numpy_files_hold_masks_labels_or_stacks(array, wanted, tmp_path):
    np.save(tmp_path / "m.npy", array)
    assert np.array_equal(read_mask_file(tmp_path / "m.npy", PHOTO, wanted), CUP)
    np.savez_compressed(tmp_path / "m.npz", array)
    assert np.array_equal(read_mask_file(tmp_path / "m.npz", PHOTO, wanted), CUP)


def test_a_file_of_many_photos_is_searched_by_name(tmp_path):
    path = write(tmp_path / "all.json", coco([BOX]))
    assert np.array_equal(read_mask_file(path, Photo(PHOTO.rgb, "other.png")), CUP)
    with pytest.raises(ValueError, match=r"about 2 photos \(room 1\.jpg, other\.jpg \.\.\.\), none of them called new"):
        open_mask_file(path, Photo(PHOTO.rgb, "new.jpg"))


def test_a_file_drawn_on_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="drawn on 90x60 but the photo is 60x60"):
        open_mask_file(write(tmp_path / "a.json", labelme()), Photo(np.zeros((60, 60, 3), np.uint8)))


BAD = {
    "text.txt": "hello",
    "boxes.txt": "0 0.5 0.5 0.2 0.2",
    "list.json": "[1, 2]",
    "object.json": "{}",
    "cut.json": json.dumps(coco([BOX]))[:90],
    "short.json": json.dumps(coco([[1, 2, 3, 4, 5, 6, 7]])),
    "counts.json": json.dumps(coco({"size": [H, W], "counts": [5, 5]})),
    "huge.json": json.dumps(coco({"size": [10**6, 10**6], "counts": [10**12]})),
    "nan.json": json.dumps(labelme()).replace("60", "NaN", 1),
    "deep.json": "[" * 100_000,
    "page.html": "<html><body>no</body></html>",
    "bomb.xml": '<!DOCTYPE a [<!ENTITY b "bb">]><annotations>&b;</annotations>',
    "numbers.txt": "0 0.1 0.2 0.3 0.4 0.5 x",
}


@pytest.mark.parametrize("name", BAD)
def test_other_files_get_a_sentence_that_names_what_is_accepted(name, tmp_path):
    with pytest.raises(ValueError, match=rf"^{name[:-4]}.*(COCO|not a picture)") as caught:
        open_mask_file(write(tmp_path / name, BAD[name]), PHOTO)
    assert len(str(caught.value)) < 600


def test_pickled_arrays_are_not_loaded(tmp_path):
    np.save(tmp_path / "m.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as NumPy"):
        open_mask_file(tmp_path / "m.npy", PHOTO)


def test_files_that_would_fill_the_memory_are_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as f:
        for _ in range(700):
            f.write(bytes(1_000_000))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04" + bytes(300))
    huge = labelme(imageHeight=60 * 10**6, imageWidth=90 * 10**6)
    brushed = label_studio({"rle": [255, 255, 255, 255, 0, 0, 0, 0], "brushlabels": ["cup"]})
    brushed[0]["annotations"][0]["result"][0] |= {"original_height": 2**15, "original_width": 2**15}
    write(tmp_path / "huge.json", huge), write(tmp_path / "brush.json", brushed)
    for name, reason in (
        ("bomb.npz", "unpacks to more"),
        ("cut.npz", "NumPy"),
        ("huge.json", "more than can be"),
        ("brush.json", "not possible"),
    ):
        with pytest.raises(ValueError, match=reason):
            open_mask_file(tmp_path / name, PHOTO)


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_come_back(seed):
    mask = np.random.default_rng(seed).random((7, 5)) > 0.5
    assert np.array_equal(shapes.from_run_lengths(run_lengths(mask), mask.shape), mask)
    assert np.array_equal(shapes.from_run_lengths(compressed(run_lengths(mask)), mask.shape), mask)
    assert np.array_equal(shapes.from_run_lengths(run_lengths(mask, False), mask.shape, by_column=False), mask)
    assert np.array_equal(shapes.from_label_studio(brush(mask), mask.shape), mask)
