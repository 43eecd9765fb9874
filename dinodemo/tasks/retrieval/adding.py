"""Photos into rows: reading, decoding and shrinking on threads while the network runs, in bounded memory."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...io.images import DAMAGE, Photo, fit_within, load_image
from .descriptor import describe, squash
from .moves import Seen
from .sources import Item, Problem
from .store import Recipe, Row

if TYPE_CHECKING:
    from ...engine.engine import Engine

THUMBNAIL_SIDE = 192
THUMBNAIL_QUALITY = 80
THREADS = 2
AHEAD = 32  # photos that may be decoded before the network takes them: small squares, so little memory
DRAFT = 2  # JPEGs are decoded at this many times the network's side at least
JPEG = b"\xff\xd8\xff"


@dataclass
class Known:
    """Which photos an index holds.

    Args:
        digests: The sha256 of each photo's content.
        files: (path, bytes, modification time in ns) of those that are files.
        paths: The digests of each path; more than one where a file has changed and its old row is still there.
    """

    digests: set[bytes] = field(default_factory=set)
    files: set[tuple] = field(default_factory=set)
    paths: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    def has_file(self, item: Item) -> bool:
        """Return whether a file is the same as when it was added, by its path, size and time: it need not be read."""
        unchanged = item.stamp is not None and (item.path, *item.stamp) in self.files
        return unchanged and len(self.paths.get(item.path, ())) < 2


@dataclass(frozen=True)
class Prepared:
    """A photo that is read, decoded and made small."""

    item: Item
    digest: bytes  # sha256
    nbytes: int
    size: tuple[int, int]  # (H, W) upright
    thumbnail: bytes
    file: bytes | None
    photo: Photo  # squashed for the network


def rows(
    engine: Engine,
    items: Iterable[Item],
    recipe: Recipe,
    known: Known,
    store: bool,
    stopped: Callable[[], bool],
    left_out: Callable[[Problem | Seen | None], None],
) -> Iterator[Row]:
    """Yield a row for each new photo, in order, until `stopped()`.

    Args:
        engine: Computes the vectors.
        items: Of `open_source`.
        recipe: How the index makes its vectors.
        known: Photos that the index holds already.
        store: Keep every photo's own bytes in its row, not only those that no path leads to.
        stopped: Asked before every photo.
        left_out: Called for each item that gives no row: with (file, reason), with Seen when its content is known, with
            None when it was not read.
    """
    waiting: deque[Prepared] = deque()

    def photos() -> Iterator[Photo]:
        for outcome in _prepare_all(items, recipe.resolution, known, store, stopped):
            if not isinstance(outcome, Prepared):
                left_out(outcome)
            elif outcome.digest in known.digests:  # a twin that was being read at the same time
                left_out(Seen(outcome.item, outcome.digest))
            else:
                known.digests.add(outcome.digest)
                waiting.append(outcome)
                yield outcome.photo

    for vector in describe(engine, photos(), recipe.resolution, recipe.descriptor):
        yield to_row(waiting.popleft(), recipe, vector)
        if stopped():  # what else the network has in hand is let go
            return


def to_row(prepared: Prepared, recipe: Recipe, vector: np.ndarray) -> Row:
    """Return the row of a photo.

    Args:
        prepared: The photo.
        recipe: How the vector was made.
        vector: (D,) float32, unit length.
    """
    item = prepared.item
    return Row(
        sha256=prepared.digest.hex(),
        path=item.path,
        label=item.label,
        nbytes=prepared.nbytes,
        mtime_ns=item.stamp[1] if item.stamp else None,
        height=prepared.size[0],
        width=prepared.size[1],
        thumbnail=prepared.thumbnail,
        file=prepared.file,
        backbone=recipe.backbone,
        resolution=recipe.resolution,
        vector=vector,
    )


def _prepare_all(
    items: Iterable[Item], side: int, known: Known, store: bool, stopped: Callable[[], bool]
) -> Iterator[Prepared | Problem | Seen | None]:
    pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="read")
    pending: deque = deque()
    try:
        for item in items:
            if stopped():
                return
            pending.append(pool.submit(prepare, item, side, known, store))
            if len(pending) >= AHEAD:
                yield pending.popleft().result()
        while pending and not stopped():
            yield pending.popleft().result()
    finally:  # also when the caller stops early; waits, because the zip that threads read is closed next
        pool.shutdown(wait=True, cancel_futures=True)


def prepare(item: Item, side: int, known: Known, store: bool) -> Prepared | Problem | Seen | None:
    """Read, decode and shrink a photo.

    Args:
        item: Of `open_source`.
        side: To which the photo is squashed, px.
        known: Photos that the index holds already.
        store: Keep the photo's own bytes.

    Returns:
        The photo; (file, reason) when it cannot be read; Seen when its content is known; None when the file is known
        and was not read.
    """
    if known.has_file(item):
        return None
    try:
        data = item.read()
        digest = hashlib.sha256(data).digest()
        if digest in known.digests:
            return Seen(item, digest)
        size, rgb = decode(data, side)
    except DAMAGE as error:  # what a file system raises is among it, and the ValueError of a bad picture
        return item.path, str(error)
    kept = data if store or item.only_here else None
    return Prepared(item, digest, len(data), size, encode_thumbnail(rgb), kept, squash(rgb, side, item.name))


def decode(data: bytes, side: int) -> tuple[tuple[int, int], np.ndarray]:
    """Decode a photo that will be shrunk.

    Args:
        data: The file.
        side: To which it will be shrunk, px.

    Returns:
        Its size (H, W) upright, and its pixels (h, w, 3) uint8 RGB, of a JPEG perhaps fewer.

    Raises:
        ValueError: It is no picture; says what to do.
    """
    if not data.startswith(JPEG):
        rgb = load_image(data)
        return rgb.shape[:2], rgb
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
    except (*DAMAGE, Image.DecompressionBombError):
        rgb = load_image(data)  # says what is wrong, or finds another reader
        return rgb.shape[:2], rgb
    with image:
        width, height = image.size
        # detail that shrinking throws away is not decoded: 12 million pixels take a quarter of the time
        image.draft(None, (DRAFT * side, DRAFT * side))
        rgb = load_image(image)
    turned = (width - height) * (rgb.shape[1] - rgb.shape[0]) < 0
    return ((width, height) if turned else (height, width)), rgb


def encode_thumbnail(rgb: np.ndarray) -> bytes:
    """Return (H, W, 3) uint8, shrunk to at most 192 pixels a side, as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(fit_within(rgb, THUMBNAIL_SIDE)).save(stream, "JPEG", quality=THUMBNAIL_QUALITY)
    return stream.getvalue()
