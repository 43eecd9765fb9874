"""Read annotation files: COCO, YOLO, labelme, CVAT, Label Studio. One small reader each.

`read_annotations` looks at the content, not only at the file's name. Every reader returns what the file says of each
photo; what it cannot use is an error that names the file and the place.
"""

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from .shapes import (
    Annotated,
    Shape,
    circle,
    ellipse,
    from_label_studio,
    from_run_lengths,
    polygon,
    rectangle,
    turned,
)

ACCEPTED = (
    "a picture (PNG, GIF, TIFF, BMP), NumPy (.npy, .npz), COCO json, YOLO polygons (.txt), labelme json, "
    "CVAT for images xml or a Label Studio json export"
)
SUFFIXES = frozenset({".json", ".xml", ".txt"})
MAX_BYTES = 300_000_000
BAD = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, OSError)
YOLO = "export polygons (YOLO segmentation)"
OUTSIDE = 0.1  # of the picture, that a polygon may reach over its border
NUMBERS = re.compile(r"^\s*\d+(\s+-?[\d.eE+-]+){4,}")


def read_annotations(data: bytes, name: str, classes: Sequence[str] = ()) -> list[Annotated]:
    """Read an annotation file.

    Args:
        data: its content.
        name: its file name, for errors; YOLO files have their photo's.
        classes: names of the classes 0, 1, ... of YOLO files; without them the numbers are the names.

    Returns:
        What it says of each photo.

    Raises:
        ValueError: where it is none of the formats, or damaged.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES // 1_000_000} MB; split it")
    text = data.decode("utf-8-sig", errors="replace").strip()
    try:
        if text.startswith("<"):
            found = _cvat(text)
        elif text.startswith(("{", "[")):
            found = _json(json.loads(text), name)
        elif NUMBERS.match(text):
            found = _yolo(text, name, classes)
        else:
            raise ValueError("it is none of the formats" if text else "it is empty: no object is marked")
    except (*BAD, ElementTree.ParseError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{name} cannot be read as annotations ({reason}); give {ACCEPTED}") from error
    return found


def _json(content, name: str) -> list[Annotated]:
    if isinstance(content, dict) and "shapes" in content:
        return [_labelme(content, name)]
    if isinstance(content, dict) and "annotations" in content and "images" in content:
        if any("segments_info" in one for one in content["annotations"]):
            raise ValueError("this is COCO's panoptic json, whose masks are the pictures beside it; give those")
        return _coco(content)
    if isinstance(content, dict) and ("annotations" in content or "completions" in content):
        return [_label_studio_task(content)]
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        if all("segmentation" in one for one in content):
            return [_coco_results(content, name)]
        whole = any(key in one for one in content for key in ("annotations", "completions", "result", "data"))
        return [(_label_studio_task if whole else _label_studio_short)(one) for one in content]
    raise ValueError("this json is neither COCO nor labelme nor a Label Studio export")


def _coco(content: dict) -> list[Annotated]:
    """Read COCO's instances json: polygons, run lengths as numbers or compressed."""
    names = {one["id"]: str(one["name"]) for one in content.get("categories", ())}
    photos = {
        one["id"]: Annotated(str(one["file_name"]), (int(one["height"]), int(one["width"])))
        for one in content["images"]
    }
    for one in content["annotations"]:
        photo = photos.get(one.get("image_id"))
        if photo is None:
            continue
        if not one.get("segmentation"):
            photo.left_out.append("box")  # alone it is no mask
            continue
        label = names.get(one.get("category_id"), str(one.get("category_id")))
        photo.shapes.append(_check_run_lengths(_coco_shape(one["segmentation"], label), photo.size or (0, 0)))
    return list(photos.values())


def _check_run_lengths(shape: Shape, size: tuple[int, int]) -> Shape:
    if shape.bitmap is not None and shape.bitmap.shape != size:
        height, width = shape.bitmap.shape
        raise ValueError(
            f"run lengths of {width} x {height} pixels on a photo of {size[1]} x {size[0]}; COCO's size is "
            "[height, width]"
        )
    return shape


def _coco_results(content: list, name: str) -> Annotated:
    """Read a bare list of masks, as SAM's automatic generator and COCO results have it."""
    shapes = [_coco_shape(one["segmentation"], str(one.get("category_id", i))) for i, one in enumerate(content, 1)]
    sizes = [shape.bitmap.shape for shape in shapes if shape.bitmap is not None]
    if len(sizes) < len(shapes):
        raise ValueError("polygons without the size of their photo; give the whole COCO json")
    return Annotated(PurePosixPath(name).stem, sizes[0], shapes)


def _coco_shape(segmentation, label: str) -> Shape:
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        return Shape(label, bitmap=from_run_lengths(segmentation["counts"], (int(height), int(width))))
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return Shape(label, tuple(polygon(part) for part in parts if len(part) >= 6))


def _labelme(content: dict, name: str) -> Annotated:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (int(height), int(width)) if height and width else None  # then of the photo
    shapes, left_out = [], []
    for one in content["shapes"]:
        kind, points, label = one.get("shape_type") or "polygon", one["points"], str(one["label"])
        if kind == "mask":
            bitmap = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["mask"])), formats=["PNG"]).convert("L")) > 0
            (x, y), _ = points
            shapes.append(Shape(label, bitmap=bitmap, corner=(max(0, int(x)), max(0, int(y)))))
        elif kind == "rectangle" and len(points) == 2:
            shapes.append(Shape(label, (rectangle(*points[0], *points[1]),)))
        elif kind == "circle":
            shapes.append(Shape(label, (circle(points[0], points[1]),)))
        elif kind in ("polygon", "rectangle", "rotation", "oriented_rectangle"):
            shapes.append(Shape(label, (polygon(points),)))
        else:
            left_out.append(kind)
    photo = str(content.get("imagePath") or PurePosixPath(name).stem).replace("\\", "/")
    return Annotated(PurePosixPath(photo).name, size, shapes, left_out, alone=True)


def _label_studio_task(task: dict) -> Annotated:
    """Read a task of Label Studio's JSON export: polygons, rectangles and ellipses in percent, the brush as RLE."""
    given = [one for one in task.get("annotations") or task.get("completions") or () if not one.get("was_cancelled")]
    results = [r for one in given for r in one.get("result", ())]
    if not results and "result" in task:
        results = task["result"]
    address = next((v for v in (task.get("data") or {}).values() if isinstance(v, str)), task.get("file_upload") or "")
    return _label_studio_results(results, address)


def _label_studio_short(task: dict) -> Annotated:
    """Read a task of the JSON-MIN export: the photo and lists of regions under names of the project's own."""
    results = [
        {**one, "value": one}
        for regions in task.values()
        if isinstance(regions, list)
        for one in regions
        if isinstance(one, dict)
    ]
    return _label_studio_results(results, next((v for v in task.values() if isinstance(v, str) and "." in v), ""))


def _label_studio_results(results: list[dict], address: str) -> Annotated:
    size, shapes, left_out = None, [], []
    for one in results:
        value = one.get("value", {})
        labels = next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list) and v), ["object"])
        if "original_height" in one:
            size = (int(one["original_height"]), int(one["original_width"]))
        shape = _label_studio_shape(value, str(labels[0]), size)
        if shape is not None:
            shapes.append(shape)
        elif "x" in value:
            left_out.append("point")
    return Annotated(_upload_name(address), size, shapes, left_out)


def _label_studio_shape(value: dict, label: str, size: tuple[int, int] | None) -> Shape | None:
    if "points" in value:
        return Shape(label, (polygon(value["points"]) / 100,), relative=True)
    if "rle" in value and size is not None:
        return Shape(label, bitmap=from_label_studio(value["rle"], size))
    if "radiusX" in value:
        outline = ellipse(value["x"], value["y"], value["radiusX"], value["radiusY"])
    elif {"x", "y", "width", "height"} <= value.keys():
        x, y = value["x"], value["y"]
        outline = rectangle(x, y, x + value["width"], y + value["height"])
    else:
        return None
    degrees = float(value.get("rotation") or 0)
    if degrees and size is None:
        raise ValueError("a turned region without the size of its photo; export it again")
    outline = turned(outline, degrees, (value["x"], value["y"]), size or (1, 1))  # a rectangle about its first corner
    return Shape(label, (outline / 100,), relative=True)


def _upload_name(address: str) -> str:
    """Return a photo's name from Label Studio's address; uploads get eight hexadecimal digits in front."""
    name = PurePosixPath(unquote(address.split("?d=")[-1].split("?")[0])).name
    return re.sub(r"^[0-9a-f]{8}-", "", name)


def _cvat(text: str) -> list[Annotated]:
    """Read "CVAT for images 1.1": polygons, boxes, ellipses and masks as run lengths row by row."""
    if "<!DOCTYPE" in text[:2000] or "<!ENTITY" in text:
        raise ValueError("it declares entities, which are not read")
    root = ElementTree.fromstring(text)
    images = root.findall(".//image")
    if root.tag != "annotations" or not images:
        raise ValueError("it is no CVAT for images xml")
    return [_cvat_image(image) for image in images]


def _cvat_image(image: ElementTree.Element) -> Annotated:
    size = (int(float(image.attrib["height"])), int(float(image.attrib["width"])))
    found = Annotated(PurePosixPath(image.attrib["name"]).name, size)
    for one in image:
        shape = _cvat_shape(one.tag, one.attrib)
        if shape is not None:
            found.shapes.append(shape)
        elif one.tag != "tag":
            found.left_out.append(one.tag)
    return found


def _cvat_shape(kind: str, a: dict[str, str]) -> Shape | None:
    label, degrees = a.get("label", "object"), float(a.get("rotation") or 0)
    if kind == "polygon":
        points = [[float(v) for v in point.split(",")] for point in a["points"].split(";") if point]
        return Shape(label, (polygon(points),))
    if kind == "box":
        outline = rectangle(*(float(a[k]) for k in ("xtl", "ytl", "xbr", "ybr")))
        return Shape(label, (turned(outline, degrees, outline.mean(axis=0)),))
    if kind == "ellipse":
        x, y, across, down = (float(a[k]) for k in ("cx", "cy", "rx", "ry"))
        return Shape(label, (turned(ellipse(x, y, across, down), degrees, (x, y)),))
    if kind == "mask":
        inner = (int(float(a["height"])), int(float(a["width"])))
        counts = [int(v) for v in a["rle"].split(",")]
        counts.append(inner[0] * inner[1] - sum(counts))  # CVAT may leave out what follows the last ones
        bitmap = from_run_lengths(counts, inner, by_column=False)
        return Shape(label, bitmap=bitmap, corner=(int(float(a["left"])), int(float(a["top"]))))
    return None


def _yolo(text: str, name: str, classes: Sequence[str]) -> list[Annotated]:
    """Read a YOLO segmentation file: a class and a polygon in shares of the picture a line."""
    shapes = []
    for i, line in enumerate(text.splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) == 5:
            raise ValueError(f"line {i} is a box, which is no mask; {YOLO}")
        number = int(parts[0])
        label = classes[number] if 0 <= number < len(classes) else str(number)
        values = [float(v) for v in parts[1:]]
        values = values[: len(values) // 2 * 2]  # an odd last one is how sure the model was
        if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in values):
            raise ValueError(f"line {i} has {max(values):g}, not a share of the picture: pixels or key points; {YOLO}")
        shapes.append(Shape(label, (polygon(values),), relative=True))
    return [Annotated(PurePosixPath(name).stem, None, shapes)]


def read_class_names(data: bytes, name: str) -> list[str]:
    """Return the classes of a YOLO set: `classes.txt` with a name a line, or the `names` of a `data.yaml`.

    Args:
        data: Content of the file.
        name: Of the file.
    """
    text = data.decode("utf-8-sig", errors="replace")
    if PurePosixPath(name).suffix.lower() not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    inline = re.search(r"^names\s*:\s*\[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if inline:
        return [part.strip().strip("'\"") for part in inline[1].split(",") if part.strip()]
    block = re.search(r"^names\s*:\s*\n((?:[ \t-].*\n?)+)", text, re.MULTILINE)
    lines = block[1].splitlines() if block else []
    return [
        re.sub(r"^\s*(-|\d+\s*:)\s*", "", line).split(" #")[0].strip().strip("'\"") for line in lines if line.strip()
    ]
