"""What the retrieval tab draws and exports: hits, statistics, maps and mistakes in, pictures, text, files out."""

import csv
import io
import json
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from ...io.images import Photo, fit_within
from ...io.render import colourise
from ..base import Option
from ..compare.draw import ANY, Look, Pair, draw_lines, summary
from ..tokens import positional_basis_of

if TYPE_CHECKING:
    from ..probe import Evaluation
    from . import Entry, Hit, ImageIndex, Statistics

WHY_RESOLUTION = 392  # pixels: fine enough for lines between parts, and quick
MAP_SIDE, DOT = 900, 44  # pixels of the map and of a thumbnail on it
MOST_ON_MAP = 400
CELL = 18  # pixels of a cell of the confusion matrix
ACCENT = (255, 214, 10)
COUNT = Option("count", 12, "Hits", "at most", 1, 100, 1)
RERANK = Option("rerank", False, "Compare parts too (slower)", "order the first 50 by their patches too")


@dataclass(frozen=True, eq=False)
class Search:
    """What was asked and what was found."""

    query: Photo
    key: str  # of the index
    backbone: str
    hits: tuple["Hit", ...]
    milliseconds: float
    region: tuple[float, float, float, float] | None


def find(index: "ImageIndex", key: str, query: Photo, region, count, labels, path, rerank) -> Search:
    """Search an index as the page's controls say; region: None or (x0, y0, x1, y1) pixels of the query."""
    from . import Filter

    started = time.perf_counter()
    hits = index.search(
        query,
        k=int(count),
        rerank=bool(rerank),
        region=region,
        where=Filter(labels=tuple(labels or ()), path=(path or "").strip()),
    )
    return Search(query, key, index.recipe.backbone, tuple(hits), 1000 * (time.perf_counter() - started), region)


def thumbnail(data: bytes) -> Image.Image:
    """Open a JPEG of an index."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def short(path: str, parts: int = 2) -> str:
    """Return the last parts of a path."""
    return "/".join(PurePosixPath(path).parts[-parts:])


def hit_pictures(hits) -> list[tuple[Image.Image, str]]:
    """Return thumbnails with captions; the region that answers a box is outlined."""
    return [(_outlined(hit), f"{hit.score:.3f} · {short(hit.path)}") for hit in hits]


def _outlined(hit: "Hit") -> Image.Image:
    picture = thumbnail(hit.thumbnail)
    if hit.region is None:
        return picture
    marked = np.ascontiguousarray(picture)
    return Image.fromarray(outline(marked, hit.region, hit.size))


def outline(rgb: np.ndarray, box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    """Draw a box, in pixels of a photo of `size` (H, W), on a smaller picture of it."""
    across, down = rgb.shape[1] / size[1], rgb.shape[0] / size[0]
    first, last = ((int(box[i] * across), int(box[i + 1] * down)) for i in (0, 2))
    marked = np.ascontiguousarray(rgb).copy()
    thick = max(2, round(max(rgb.shape) / 160))
    cv2.rectangle(marked, first, last, (0, 0, 0), thick + 2)
    cv2.rectangle(marked, first, last, ACCENT, thick)
    return marked


def why(index: "ImageIndex", search: Search, hit: "Hit") -> tuple[np.ndarray, str]:
    """Draw which parts of query and hit agree; returns (h, w, 3) uint8 and a sentence."""
    other = index.photo(hit.sha256)
    engine = index.engine
    ours, theirs = (engine.features(photo, resolution=WHY_RESOLUTION) for photo in (search.query, other))
    left, right = (Photo(fit_within(photo.rgb, 1024), photo.name) for photo in (search.query, other))
    if search.region is not None:
        left = Photo(outline(left.rgb, search.region, search.query.size), left.name)
    if hit.region is not None:
        right = Photo(outline(right.rgb, hit.region, hit.size), right.name)
    pair = Pair((left, right), (ours, theirs), positional_basis_of(engine, WHY_RESOLUTION), ())
    look = Look(30, 0.4, ANY)
    return draw_lines(pair, look), f"**{short(hit.path, 4)}** · score {hit.score:.3f} · {summary(pair, look)}"


def status(search: Search, count: int) -> str:
    """Return how many photos were searched, with what, how fast."""
    where = "the boxed part" if search.region else "the photo"
    return (
        f"{len(search.hits)} nearest of {count} photos to {where} of **{search.query.name}**, with "
        f"{search.backbone} · {search.milliseconds:.0f} ms"
    )


def hits_csv(search: Search) -> tuple[str, bytes]:
    """Return the hits as CSV."""
    text = io.StringIO()
    rows = csv.DictWriter(text, list(_row(1, search.hits[0])) if search.hits else ["rank"])
    rows.writeheader()
    rows.writerows(_row(i, hit) for i, hit in enumerate(search.hits, start=1))
    return "hits.csv", text.getvalue().encode()


def hits_json(search: Search) -> tuple[str, bytes]:
    """Return the hits as JSON, with what was asked."""
    content = {
        "query": search.query.name,
        "region": search.region,
        "backbone": search.backbone,
        "hits": [_row(i, hit) for i, hit in enumerate(search.hits, start=1)],
    }
    return "hits.json", json.dumps(content, indent=1, ensure_ascii=False).encode()


def _row(rank: int, hit: "Hit") -> dict:
    return {
        "rank": rank,
        "score": round(hit.score, 5),
        "path": hit.path,
        "label": hit.label,
        "sha256": hit.sha256,
        "height": hit.size[0],
        "width": hit.size[1],
        "region": None if hit.region is None else " ".join(str(v) for v in hit.region),
    }


def statistics(found: "Statistics") -> str:
    """Return a few lines about an index."""
    if found.recipe is None:
        return "This index is empty; add photos in the tab Build."
    recipe = found.recipe
    labels = f"{len(found.labels)} labels" if found.labels else "no labels"
    how = found.search
    if found.recall_at_10 is not None:
        how += f", recall@10 {found.recall_at_10:.3f} against exact search"
    note = f"\n\n{found.note}" if found.note else ""
    return (
        f"**{found.count} photos** ({found.photo_bytes / 1e6:.0f} MB), {labels} · made with **{recipe.backbone}** at "
        f"{recipe.resolution} px, descriptor {recipe.descriptor} · search: {how}{note}"
    )


def map_picture(positions: np.ndarray, thumbs: list[Image.Image]) -> np.ndarray:
    """Draw thumbnails at their positions (n, 2), each from 0 to 1: (MAP_SIDE, MAP_SIDE, 3) uint8."""
    canvas = Image.new("RGB", (MAP_SIDE, MAP_SIDE), (32, 32, 36))
    for position, thumb in zip(positions, thumbs, strict=True):
        small = thumb.copy()
        small.thumbnail((DOT, DOT))
        x, y = (int(v * (MAP_SIDE - DOT)) for v in position)
        canvas.paste(small, (x + (DOT - small.width) // 2, y + (DOT - small.height) // 2))
    return np.asarray(canvas)


def scaled(positions: np.ndarray) -> np.ndarray:
    """Scale positions (n, 2) to 0..1; single far ones are held at the border."""
    low, high = np.quantile(positions, 0.01, axis=0), np.quantile(positions, 0.99, axis=0)
    return np.clip((positions - low) / np.maximum(high - low, 1e-9), 0, 1)


def nearest(positions: np.ndarray, x: float, y: float) -> int:
    """Return which of the positions (n, 2) on the map is nearest to the pixel (x, y)."""
    middles = positions * (MAP_SIDE - DOT) + DOT / 2
    return int(np.square(middles - (x, y)).sum(axis=1).argmin())


def confusion_picture(found: "Evaluation") -> np.ndarray:
    """Draw the confusion matrix: rows the truth, columns the answer, each row by its own total; (h, w, 3) uint8."""
    shares = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    cell = max(1, min(CELL * 3, 720 // len(shares)))
    return np.kron(colourise(shares, "viridis"), np.ones((cell, cell, 1), np.uint8)).astype(np.uint8)


def confusion_csv(found: "Evaluation") -> tuple[str, bytes]:
    """Return the confusion matrix as CSV."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["truth \\ answer", *found.classes])
    for name, counts in zip(found.classes, found.confusion, strict=True):
        rows.writerow([name, *counts])
    return "confusion.csv", text.getvalue().encode()


def confused_pairs(found: "Evaluation", most: int = 8) -> str:
    """List the pairs of classes that are taken for each other most often, as Markdown."""
    wrong = found.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    rows = [f"| {found.classes[r]} | {found.classes[c]} | {wrong[r, c]} |" for r, c in order if wrong[r, c]]
    return "| truth | answer | times |\n|---|---|---|\n" + "\n".join(rows) if rows else "No mistakes."


def group_pictures(groups: list[list["Entry"]], thumbs: dict[str, bytes], most: int) -> list[tuple]:
    """Return thumbnails of groups, one group after the other, captioned with the group's number."""
    return [
        (thumbnail(thumbs[entry.sha256]), f"{number}: {short(entry.path)}")
        for number, group in enumerate(groups, start=1)
        for entry in group[:most]
        if entry.sha256 in thumbs
    ]
