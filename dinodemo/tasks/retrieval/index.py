"""The index: photos in, the most similar photos out; a table on disk that survives whatever happens to the process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...io.images import ImageSource, Photo, as_photo
from . import adding, localize
from .descriptor import describe_one, squash
from .moves import Moves, Relocation, relocate, under
from .reader import IndexReader
from .results import Hit, to_hit
from .snapshot import NO_FILTER, Filter
from .sources import PathLike, Source, open_source
from .store import Recipe, one_of, quoted, recipe_of
from .writing import AddReport, MakeRows, Progress, Writer, fill, known_of, level, network_doubt, new_recipe, rebuild

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...engine.features import Features

RESOLUTION = 224
log = logging.getLogger(__name__)


class ImageIndex(IndexReader):
    """Find photos by similarity. Safe to use from many threads, and while another process adds.

    Args:
        path: A folder, made by the first `add`, or an object store's address (s3://bucket/index).
        engine: Computes the vectors; without one the index can be looked at but not asked or added to.
        resolution: Of a new index, px; None takes what is there, or 224.
        descriptor: Of a new index (see `descriptor.DESCRIPTORS`); None takes what is there, or what serves the backbone
            best.
        ranking: "whitened", or the descriptors' plain "cosine".

    Raises:
        ValueError: The ranking is unknown, or resolution or descriptor differ from what is there.
    """

    def __init__(
        self,
        path: PathLike,
        engine: Engine | None = None,
        resolution: int | None = None,
        descriptor: str | None = None,
        ranking: str = "whitened",
    ):
        super().__init__(path, ranking)
        self.engine = engine
        self._resolution, self._descriptor = resolution, descriptor
        table = self._store.open()
        self._check_asked(recipe_of(table) if table is not None else None)

    def add(
        self,
        source: Source,
        progress: Progress | None = None,
        stopped: Callable[[], bool] = lambda: False,
        store: bool = False,
        make_rows: MakeRows = adding.rows,
    ) -> AddReport:
        """Add photos. Written a batch at a time: adding the same source again goes on where it stopped.

        A photo whose content is there already is skipped; where it has moved, its row gets the new path. A file that
        holds another picture than before has its row replaced. A photo that cannot be read is named in the report and
        the rest go on.

        Args:
            source: A folder, a zip, one photo, (name, bytes), or a list of these.
            progress: Called with photos done and their total; what it was called with is on the disk for good.
            stopped: Asked before every photo.
            store: Keep each photo's file in the index, not only its path.
            make_rows: Computes the rows; another function may spread them over machines.

        Returns:
            What was added, skipped, moved and left out.

        Raises:
            ValueError: The engine runs another backbone than the index's, or the source does not exist.
            RuntimeError: The disk refuses.
        """
        recipe = self.recipe or self._new_recipe()
        self._check_engine(recipe)
        with open_source(source) as (items, problems):
            table = self._store.open_or_create(recipe)
            known = known_of(table)
            writer = Writer(self._store, table, AddReport(problems=problems), len(items), progress, Moves(known))
            report = fill(writer, self._needed_engine(), recipe, items, known, store, stopped, make_rows)
        self._after_change(table)
        return report

    def search(
        self,
        image: ImageSource | Photo,
        k: int = 12,
        rerank: bool = False,
        where: Filter = NO_FILTER,
        region: tuple[float, float, float, float] | None = None,
    ) -> list[Hit]:
        """Return the most similar photos, best first.

        `rerank` and `region` look at the hits' photos: some seconds on a CPU.

        Args:
            image: Path, bytes, PIL, (H, W, 3) uint8 RGB or Photo.
            k: Most hits, 1 or more.
            rerank: Order the first 50 by their patches too.
            where: Only photos of these labels, or with this in their path.
            region: x0, y0, x1, y1 in pixels of the upright picture; what is inside is searched for, and outlined in
                each hit.

        Raises:
            ValueError: The engine runs another backbone, the picture cannot be read, or the index is empty.
        """
        photo = as_photo(image)
        if region is not None:
            photo = Photo(localize.crop(photo.rgb, region), photo.name)
        hits = self.search_vector(self.describe(photo), max(k, localize.RERANK_FIRST) if rerank else k, where)
        if rerank:
            hits = localize.rerank(self._features(photo), hits, self._features_of)[:k]
        if region is None:
            return hits
        query = self._features(photo)
        token = (self.describe(photo) - self._current().whitening.mean)[: query.cls.size]
        return localize.outline(query, token, hits, self._features_of)

    def search_vector(self, vector: np.ndarray, k: int = 12, where: Filter = NO_FILTER) -> list[Hit]:
        """Return the photos nearest to a vector, best first.

        Args:
            vector: (D,), unit length, of `describe`.
            k: Most hits, 1 or more.
            where: Only photos of these labels, or with this in their path.

        Raises:
            ValueError: `k` is below 1 or the index is empty.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k!r}")
        return [to_hit(row) for row in self._current().nearest(vector, k, where)]

    def describe(self, image: ImageSource | Photo) -> np.ndarray:
        """Return a picture's vector (D,) float32, unit length, made as the index's own."""
        recipe = self._needed_recipe()
        self._check_engine(recipe)
        photo = as_photo(image)
        small = squash(photo.rgb, recipe.resolution, photo.name)
        return describe_one(self._needed_engine(), small, recipe.resolution, recipe.descriptor)

    def remove(self, names: Iterable[str]) -> int:
        """Remove photos by their path or sha256, or all those under a folder; their files stay. Returns how many."""
        names = [names] if isinstance(names, str) else list(names)
        table = self._store.open()
        if table is None or not names:
            return 0
        inside = [under(name) for name in names]
        count = self._store.delete(table, " OR ".join([one_of("sha256", names), one_of("path", names), *inside]))
        self._after_change(table)
        return count

    def relocate(self, old: str | Path, new: str | Path) -> Relocation:
        """Update the paths of a folder, zip or photo that has moved, without reading any photo.

        Args:
            old: Where it was.
            new: Where it is.

        Returns:
            How many rows have a new path.

        Raises:
            ValueError: The index holds nothing there.
        """
        table = self._store.open()
        if table is None:
            raise ValueError(f"{self.path} holds no index yet; add photos first")
        return relocate(self._store, table, str(old), str(new))

    def label(self, digests: Iterable[str], label: str) -> int:
        """Set the label of photos and return how many rows changed.

        Args:
            digests: The photos' sha256.
            label: "" takes it away.
        """
        table, digests = self._store.open(), list(digests)
        if table is None or not digests:
            return 0
        value = quoted(label.strip()) if label.strip() else "NULL"
        return self._store.update(table, one_of("sha256", digests), {"label": value})

    def rename(self, old: str | Path, new: str | Path) -> int:
        """Return how many rows have a new path after `relocate`, 0 where the index holds nothing under `old`.

        Args:
            old: Where the photos were.
            new: Where they are.
        """
        try:
            return self.relocate(old, new).moved
        except ValueError:
            return 0

    def rebuild(
        self,
        engine: Engine,
        resolution: int | None = None,
        descriptor: str | None = None,
        progress: Progress | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> AddReport:
        """Compute all vectors anew with another backbone, resolution or descriptor; searches go on meanwhile.

        The new index takes the old one's place at one stroke; stopped or killed, the old one stays and the next call
        goes on.

        Args:
            engine: Of the new vectors.
            resolution: None keeps the one that is there, px.
            descriptor: None takes what serves the backbone best.
            progress: Called with photos done and their total.
            stopped: Asked before every photo.

        Returns:
            What was done; photos that cannot be read any more are named in it and left out.
        """
        old = self._needed_recipe()
        recipe = new_recipe(engine, resolution or old.resolution, descriptor)
        report = rebuild(self._store, engine, recipe, progress, stopped)
        if not report.stopped:
            self.engine, self._resolution, self._descriptor = engine, resolution, descriptor
            self._after_change(self._store.open())
        return report

    def follow(
        self, other: ImageIndex, progress: Progress | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> AddReport:
        """Make this index hold the photos of another one, with vectors of its own backbone.

        What is here already stays, so following again is quick.

        Args:
            other: The index to follow.
            progress: Called with photos done and their total.
            stopped: Asked before every photo.

        Returns:
            What was added and left out, as of `add`.

        Raises:
            ValueError: As for `add`.
        """
        recipe = self.recipe or self._new_recipe()
        self._check_engine(recipe)
        table, report = self._store.open_or_create(recipe), AddReport()
        level(other._current(), self._store, table, self._needed_engine(), recipe, report, progress, stopped)
        self._after_change(table)
        return report

    def _features(self, photo: Photo) -> Features:
        side = self._needed_recipe().resolution
        return self._needed_engine().features(squash(photo.rgb, side, photo.name), resolution=side)

    def _features_of(self, hit: Hit) -> Features | None:
        try:
            return self._features(self.photo(hit.sha256))
        except ValueError:  # its file is gone; the hit itself stands
            return None

    def _needed_engine(self) -> Engine:
        if self.engine is None:
            raise ValueError("an index without an engine can only be looked at; give ImageIndex an engine")
        return self.engine

    def _new_recipe(self) -> Recipe:
        return new_recipe(self._needed_engine(), self._resolution or RESOLUTION, self._descriptor)

    def _check_asked(self, recipe: Recipe | None) -> None:
        for name, asked in (("resolution", self._resolution), ("descriptor", self._descriptor)):
            if recipe is not None and asked is not None and asked != getattr(recipe, name):
                raise ValueError(
                    f"the index {self.path} was made with {name} {getattr(recipe, name)}, not {asked}; "
                    "leave it out, or rebuild the index"
                )

    def _check_engine(self, recipe: Recipe) -> None:
        doubt = network_doubt(recipe, self._needed_engine(), self.path)
        if doubt and doubt != self.doubt:
            log.warning("%s", doubt)
        self.doubt = doubt
