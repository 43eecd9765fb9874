"""Masks in the odder variants of each format: turned boxes, short exports, scores, pages, what is no area."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from dinodemo.io.images import Photo
from dinodemo.tasks.segmentation.annotations import read_annotations
from dinodemo.tasks.segmentation.masks import open_mask_file, read_mask_file

H, W = 120, 160
PHOTO = Photo(np.zeros((H, W, 3), np.uint8), "photo.png")
Y, X = np.mgrid[:H, :W]
BOX = (30, 20, 90, 60)
IN_BOX = (X >= 30) & (X < 90) & (Y >= 20) & (Y < 60)
DISC = np.hypot(X + 0.5 - 80, Y + 0.5 - 60) < 30
CORNERS = [[30, 20], [90, 20], [90, 60], [30, 60]]


def turned_box(degrees: float, around: tuple[float, float], box=BOX) -> np.ndarray:
    """Return the pixels whose center, turned back, lies inside the box."""
    angle = np.deg2rad(degrees)
    x, y = X + 0.5 - around[0], Y + 0.5 - around[1]
    back_x = x * np.cos(angle) + y * np.sin(angle) + around[0]
    back_y = -x * np.sin(angle) + y * np.cos(angle) + around[1]
    return (back_x >= box[0]) & (back_x < box[2]) & (back_y >= box[1]) & (back_y < box[3])


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def cvat(inner: str) -> str:
    return f'<annotations><image id="0" name="photo.png" width="{W}" height="{H}">{inner}</image></annotations>'


def labelme(*shapes: dict, size: tuple = (H, W)) -> str:
    shapes = [{"label": "a"} | shape for shape in shapes]
    return json.dumps({"shapes": shapes, "imagePath": "photo.png", "imageHeight": size[0], "imageWidth": size[1]})


def region(x: float, y: float, **value) -> dict:
    value = {"x": 100 * x / W, "y": 100 * y / H} | value
    return {"original_width": W, "original_height": H, "value": value}


def rectangle(x: float, y: float, width: float, height: float, rotation: float = 0) -> dict:
    size = {"width": 100 * width / W, "height": 100 * height / H, "rotation": rotation}
    return region(x, y, **size, rectanglelabels=["a"])


def task(*annotations: dict) -> str:
    return json.dumps([{"data": {"image": "/data/upload/1/0a1b2c3d-photo.png"}, "annotations": list(annotations)}])


def read(folder, name: str, content: str, **options) -> np.ndarray:
    (folder / name).write_text(content)
    return read_mask_file(folder / name, PHOTO, **options)


VARIANTS = {
    "CVAT, a turned box": (
        "a.xml",
        cvat('<box label="a" xtl="30" ytl="20" xbr="90" ybr="60" rotation="30.0"/>'),
        turned_box(30, (60, 40)),
    ),
    "CVAT, a turned ellipse": (
        "a.xml",
        cvat('<ellipse label="a" cx="80" cy="60" rx="20" ry="40" rotation="90"/>'),
        ((X + 0.5 - 80) / 40) ** 2 + ((Y + 0.5 - 60) / 20) ** 2 < 1,
    ),
    "CVAT, a line beside a box": (
        "a.xml",
        cvat('<polyline label="b" points="1,1;2,2"/><box label="a" xtl="30" ytl="20" xbr="90" ybr="60"/>'),
        IN_BOX,
    ),
    "Label Studio, a box turned about its first corner": (
        "a.json",
        task({"result": [rectangle(60, 20, 60, 40, 30)]}),
        turned_box(30, (60, 20), (60, 20, 120, 60)),
    ),
    "Label Studio, a turned ellipse": (
        "a.json",
        task({"result": [region(80, 60, radiusX=2000 / W, radiusY=4000 / H, rotation=90, ellipselabels=["a"])]}),
        ((X + 0.5 - 80) / 40) ** 2 + ((Y + 0.5 - 60) / 20) ** 2 < 1,
    ),
    "Label Studio, a cancelled annotation": (
        "a.json",
        task(
            {"was_cancelled": True, "result": [rectangle(0, 0, W, H)]},
            {"was_cancelled": False, "result": [rectangle(30, 20, 60, 40)]},
        ),
        IN_BOX,
    ),
    "Label Studio, the short export": (
        "a.json",
        json.dumps(
            [{"image": "/data/upload/1/0a1b2c3d-photo.png", "id": 7, "where": [rectangle(30, 20, 60, 40)["value"]]}]
        ),
        IN_BOX,
    ),
    "labelme, a rectangle of four points": ("a.json", labelme({"shape_type": "rectangle", "points": CORNERS}), IN_BOX),
    "labelme, a turned rectangle": ("a.json", labelme({"shape_type": "rotation", "points": CORNERS}), IN_BOX),
    "labelme, two corners in any order": (
        "a.json",
        labelme({"shape_type": "rectangle", "points": [[90, 60], [30, 20]]}),
        IN_BOX,
    ),
    "labelme, a circle": ("a.json", labelme({"shape_type": "circle", "points": [[80, 60], [110, 60]]}), DISC),
    "labelme without the photo's size": ("a.json", labelme({"points": CORNERS}, size=(None, None)), IN_BOX),
    "YOLO with a confidence at the end": (
        "photo.txt",
        "0 " + " ".join(f"{x / W} {y / H}" for x, y in CORNERS) + " 0.93",
        IN_BOX,
    ),
}


@pytest.mark.parametrize("case", VARIANTS)
def test_shapes_lie_where_the_tool_shows_them(tmp_path, case):
    name, content, wanted = VARIANTS[case]
    assert iou(read(tmp_path, name, content), wanted) > 0.97


def coco(segmentation) -> str:
    photo = {"id": 1, "file_name": "photo.png", "height": H, "width": W}
    shape = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": segmentation}
    return json.dumps({"images": [photo], "categories": [{"id": 3, "name": "cup"}], "annotations": [shape]})


UNUSABLE = {
    "COCO, boxes": ("a.json", coco([]), "only box; export polygons or masks"),
    "COCO, run lengths the other way round": ("a.json", coco({"size": [W, H], "counts": [W * H]}), "height, width"),
    "COCO, panoptic": (
        "a.json",
        json.dumps({"images": [], "annotations": [{"segments_info": [], "file_name": "photo.png"}]}),
        "whose masks are the pictures beside it",
    ),
    "labelme, a line": ("a.json", labelme({"shape_type": "line", "points": [[1, 2], [3, 4]]}), "only line"),
    "CVAT, points": ("a.xml", cvat('<points label="a" points="1,2;3,4"/>'), "only points"),
    "CVAT, a video": ("a.xml", '<annotations><track id="0" label="a"/></annotations>', "CVAT for images xml"),
    "Label Studio, key points": ("a.json", task({"result": [region(1, 2, keypointlabels=["a"])]}), "only point"),
    "YOLO, boxes": ("photo.txt", "0 .5 .5 .4 .5", "is a box, which is no mask"),
    "YOLO in pixels": ("photo.txt", "0 30 20 90 20 90 60", "not a share of the picture"),
    "YOLO, poses": ("photo.txt", "0 .5 .5 .4 .5 " + "0.4 0.5 2 " * 17, "not a share of the picture"),
    "VIA": ("a.json", '{"photo.png123": {"filename": "photo.png", "regions": []}}', "COCO json, YOLO polygons"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_no_area_gets_a_sentence(tmp_path, case):
    name, content, message = UNUSABLE[case]
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


def test_shapes_without_an_area_are_counted(tmp_path):
    (tmp_path / "a.xml").write_text(VARIANTS["CVAT, a line beside a box"][1])
    file = open_mask_file(tmp_path / "a.xml", PHOTO)
    assert "1 shapes without an area are left out" in file.message(file.choose())


def test_two_photos_of_one_name_in_a_file_are_told_apart_by_the_person(tmp_path):
    content = json.loads(coco([[30, 20, 90, 20, 90, 60]]))
    content["images"][0]["file_name"] = "a/photo.png"
    content["images"].append({"id": 2, "file_name": "b/photo.png", "height": H, "width": W})
    with pytest.raises(ValueError, match=r"several photos called photo\.png \(a/photo\.png, b/photo\.png\)"):
        read(tmp_path, "a.json", json.dumps(content))
    assert len(read_annotations(json.dumps(content).encode(), "a.json")) == 2


SCORES = cv2.GaussianBlur(np.where(DISC, 4.0, -18.0), (0, 0), 2)
ARRAYS = {
    "-1 is void": (np.where(X < 10, -1, DISC.astype(int)), DISC, "void"),
    "-1 is the background": (np.where(DISC, 1, -1), DISC, ""),
    "scores": (SCORES, SCORES > 0, "what is above 0 was taken"),
    "colours": (np.repeat(np.where(DISC, 255, 0).astype(np.uint8)[..., None], 3, axis=2), DISC, ""),
    "colours with alpha": (np.where(DISC[..., None], 255, 0) * np.ones(4, np.uint8), DISC, ""),
    "nan": (np.where(DISC, 1.0, np.nan), DISC, ""),
    "nearly black and white": (np.where(DISC, 254, 1).astype(np.uint8), DISC, ""),
    "one of a stack": (DISC[None], DISC, ""),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_of_any_kind(tmp_path, case):
    array, wanted, said = ARRAYS[case]
    np.save(tmp_path / "a.npy", array.astype(np.uint8) if "colours" in case else array)
    file = open_mask_file(tmp_path / "a.npy", PHOTO)
    mask = file.choose()
    assert iou(mask, wanted) > 0.99 and said in file.message(mask)


def pgm(values: np.ndarray, white: int) -> bytes:
    return f"P5\n{W} {H}\n{white}\n".encode() + values.tobytes()


def test_pages_bits_and_byte_orders(tmp_path):
    grey = np.where(DISC, 255, 0).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(255 - grey)])
    picture.save(tmp_path / "pages.gif", save_all=True, append_images=[Image.fromarray(255 - grey)])
    picture.convert("1").save(tmp_path / "fax.tif", compression="group4")
    Image.merge("LA", [Image.new("L", (W, H)), picture]).save(tmp_path / "alpha.png")
    picture.convert("CMYK").save(tmp_path / "ink.jpg")
    (tmp_path / "deep.pgm").write_bytes(pgm(grey.astype(">u2") * 257, 65535))
    (tmp_path / "one.pgm").write_bytes(pgm(DISC.astype(np.uint8), 1))
    for path in sorted(tmp_path.iterdir()):
        file = open_mask_file(path, PHOTO)
        mask = file.choose()
        assert iou(mask, DISC) > 0.98, path.name
        assert ("holds 2 pictures; the first one was taken" in file.message(mask)) == (path.stem == "pages")
