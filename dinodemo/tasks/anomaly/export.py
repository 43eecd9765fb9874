"""Files out: scores as csv, maps as 16-bit PNG on the fixed scale, masks, and COCO annotations."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...io.files import stem
from ...io.images import load_image, scale_to
from ...io.render import png_bytes
from .detector import Anomaly
from .draw import Checked, outline

FULL_SCALE = 4.0  # lines at which a 16-bit map ends: the same for every photo and every set
COLUMNS = ("path", "score", "verdict")
CATEGORY = {"id": 1, "name": "anomaly"}


def scores_csv(rows: Iterable[tuple[str, float, str]]) -> bytes:
    """Write (path, score, verdict) rows as csv; scores are in units of the line that good photos gave."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((path, f"{score:.6f}", verdict) for path, score, verdict in rows)
    return buffer.getvalue().encode()


def map_png(result: Anomaly, comment: str = "") -> bytes:
    """Return the map at the photo's size as 16-bit PNG: 0 to 65535 is 0 to `FULL_SCALE` lines, for every photo."""
    levels = (np.clip(result.map / FULL_SCALE, 0, 1) * 65535).round().astype(np.uint16)
    buffer, info = io.BytesIO(), PngInfo()
    info.add_itxt("Comment", f"{comment} 65535 = {FULL_SCALE:g} x the line of the good photos.".strip())
    Image.fromarray(levels).save(buffer, "PNG", compress_level=3, pnginfo=info)
    return buffer.getvalue()


def zip_file(checked: Sequence[Checked], line: float, made_with: str) -> tuple[str, bytes]:
    """Pack scores, maps, masks and overlays at the photos' own sizes, and COCO annotations of what was outlined."""
    buffer = io.BytesIO()
    images: list[dict] = []
    annotations: list[dict] = []
    with zipfile.ZipFile(buffer, "w") as archive:
        rows = [(one.photo.name, one.result.score, one.result.verdict_at(line)) for one in checked]
        archive.writestr("scores.csv", scores_csv(rows))
        for i, one in enumerate(checked, start=1):
            name, mask = f"{i:03d}-{stem(one.photo.name)}.png", one.result.at(line)
            archive.writestr(f"maps/{name}", map_png(one.result, made_with))
            archive.writestr(f"masks/{name}", png_bytes(mask.astype(np.uint8) * 255, made_with))
            archive.writestr(f"overlays/{name}", png_bytes(outline(_full(one), mask), made_with))
            images.append({"id": i, "file_name": one.photo.name, "height": mask.shape[0], "width": mask.shape[1]})
            annotations += coco(mask, one.result, i, len(annotations))
        card = {"info": {"description": made_with, "line": line}, "images": images, "annotations": annotations}
        archive.writestr("annotations.json", json.dumps({**card, "categories": [CATEGORY]}))
    return "anomalies.zip", buffer.getvalue()


def coco(mask: np.ndarray, result: Anomaly, image: int, before: int = 0) -> list[dict]:
    """Return a COCO annotation (uncompressed RLE) for each connected piece of a mask (H, W) bool.

    Args:
        mask: Where the photo is anomalous.
        result: What the detector found; each piece gets the highest value of its map as `score`.
        image: The photo's id.
        before: How many annotations there are already; ids go on from there.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    values = result.map
    return [
        {
            "id": before + number,
            "image_id": image,
            "category_id": CATEGORY["id"],
            "iscrowd": 0,
            "area": int(stats[number, cv2.CC_STAT_AREA]),
            "bbox": [int(value) for value in stats[number, :4]],
            "score": round(float(values[labels == number].max()), 4),
            "segmentation": run_lengths(labels == number),
        }
        for number in range(1, count)
    ]


def run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask (H, W) bool as COCO's RLE: down the columns, zeros first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def _full(one: Checked) -> np.ndarray:
    """Return the photo at its own size: from the upload while it is there, else enlarged from what is kept."""
    try:
        rgb = load_image(one.path)
    except ValueError:
        rgb = scale_to(one.photo.rgb, max(one.size))
    return rgb
