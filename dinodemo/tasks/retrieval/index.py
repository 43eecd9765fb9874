"""The index: photos in, the most similar photos out; a table on disk that survives whatever happens to the process."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...io.images import ImageSource, Photo, load_photo
from . import adding, analysis, approximate, localize
from .approximate import Builder
from .descriptor import describe_one, squash
from .moves import Moves, Relocation, missing_paths, relocate, under
from .ranking import RANKINGS
from .results import Entry, Hit, Statistics, to_hit
from .snapshot import EXACT_ROWS, NO_FILTER, Filter, Snapshot
from .sources import PathLike, Source, open_source, read_again
from .store import Recipe, Store, one_of, quoted, recipe_of
from .writing import AddReport, MakeRows, Progress, Writer, fill, known_of, level, network_doubt, new_recipe, rebuild

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...engine.features import Features

RESOLUTION = 224
log = logging.getLogger(__name__)


class ImageIndex:
    """Find photos by similarity. Safe to use from many threads, and while another process adds.

    path: a folder, made by the first `add`, or an object store's address (s3://bucket/index).
    engine: computes the vectors; without one the index can be looked at but not asked or added to.
    resolution, descriptor: of a new index (see `descriptor.DESCRIPTORS`); None takes what is there, or what serves
    the backbone best. Raises ValueError when they differ from what is there.
    ranking: "whitened", or the descriptors' plain "cosine".
    """

    def __init__(
        self,
        path: PathLike,
        engine: Engine | None = None,
        resolution: int | None = None,
        descriptor: str | None = None,
        ranking: str = "whitened",
    ):
        if ranking not in RANKINGS:
            raise ValueError(f"ranking must be one of {', '.join(RANKINGS)}, got {ranking!r}")
        self.engine = engine
        self._store = Store(path)
        self._resolution, self._descriptor = resolution, descriptor
        self._ranking = ranking
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._builder = Builder(self._store)
        self._recall: float | None = None
        self.doubt = ""  # why its vectors may be another network's than the engine's, once the engine was asked
        table = self._store.open()
        self._check_asked(recipe_of(table) if table is not None else None)

    @property
    def path(self) -> str:
        """Return the index's absolute path, or its address."""
        return self._store.uri

    @property
    def recipe(self) -> Recipe | None:
        """Return how the vectors were made; None before the first photo."""
        table = self._store.open()
        return None if table is None else recipe_of(table)

    def __len__(self) -> int:
        table = self._store.open()
        return 0 if table is None else table.count_rows()

    def add(
        self,
        source: Source,
        progress: Progress | None = None,
        stopped: Callable[[], bool] = lambda: False,
        store: bool = False,
        make_rows: MakeRows = adding.rows,
    ) -> AddReport:
        """Add the photos of a folder, a zip, one photo, (name, bytes), or a list of these.

        A photo whose content is there already is skipped; where it has moved, its row gets the new path. A file that
        holds another picture than before has its row replaced. A photo that cannot be read is named in the report and
        the rest go on. Written a batch at a time: what progress(done, total) has told is there for good, and adding the
        same source again goes on where it stopped. store: keep each photo's file in the index, not only its path.
        Raises ValueError for another backbone's engine and for a source that does not exist, RuntimeError when the
        disk refuses.
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
        """Return the k most similar photos, best first.

        image: path, bytes, PIL, (H, W, 3) uint8 or Photo. where: only photos of these labels, or with this in their
        path. region: x0, y0, x1, y1 in pixels of the upright picture; what is inside is searched for, and outlined in
        each hit. rerank: order the first 50 by their patches too. Both look at the hits' photos: some seconds on a
        CPU. Raises ValueError for another backbone's engine, for pictures that cannot be read and for an empty index.
        """
        photo = image if isinstance(image, Photo) else load_photo(image)
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
        """Return the k photos nearest to a unit vector (D,), best first."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k!r}")
        return [to_hit(row) for row in self._current().nearest(vector, k, where)]

    def describe(self, image: ImageSource | Photo) -> np.ndarray:
        """Return a picture's vector (D,) float32, unit length, made as the index's own."""
        recipe = self._needed_recipe()
        self._check_engine(recipe)
        photo = image if isinstance(image, Photo) else load_photo(image)
        small = squash(photo.rgb, recipe.resolution, photo.name)
        return describe_one(self._needed_engine(), small, recipe.resolution, recipe.descriptor)

    def gallery(self) -> tuple[list[Entry], np.ndarray]:
        """Return all photos and their vectors (n, D) float32, row by row."""
        snapshot = self._current()
        names = snapshot.read(["sha256", "path", "label"])
        return [Entry(*row) for row in zip(*names.values(), strict=True)], snapshot.vectors()

    def photo(self, sha256: str) -> Photo:
        """Read a photo in full from where it lies; raises ValueError when it is not in the index, gone, or changed."""
        found = self._current().find(one_of("sha256", [sha256]), ["path", "file"])
        if not found:
            raise ValueError(f"no photo {sha256[:12]} in {self.path}; it was removed")
        path, data = found[0]["path"], found[0]["file"]
        return load_photo(read_again(path, sha256) if data is None else data, name=path.rsplit("/", 1)[-1])

    def thumbnails(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the JPEG thumbnails of photos by their sha256."""
        found = self._current().find(one_of("sha256", digests), ["sha256", "thumbnail"])
        return {row["sha256"]: row["thumbnail"] for row in found}

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

    def relocate(self, old: str, new: str) -> Relocation:
        """Follow a folder, zip or photo that has moved from `old` to `new`, without reading any photo.

        Raises:
            ValueError: When the index holds nothing there.
        """
        table = self._store.open()
        if table is None:
            raise ValueError(f"{self.path} holds no index yet; add photos first")
        return relocate(self._store, table, old, new)

    def label(self, digests: Iterable[str], label: str) -> int:
        """Set the label of photos given by their sha256, "" takes it away; returns how many rows changed."""
        table, digests = self._store.open(), list(digests)
        if table is None or not digests:
            return 0
        value = quoted(label.strip()) if label.strip() else "NULL"
        return self._store.update(table, one_of("sha256", digests), {"label": value})

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Return the paths of photos, given by their sha256, where no file lies any more."""
        columns = {"path": "path", "kept": "file IS NOT NULL"}
        return missing_paths(self._current().find(one_of("sha256", digests), columns))

    def rename(self, old: str, new: str) -> int:
        """Do as `relocate`; returns how many rows have a new path, 0 where the index holds nothing under `old`."""
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
        goes on. Photos that cannot be read any more are named in the report and left out.
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

        What is here already stays, so following again is quick. Errors and report as those of `add`.
        """
        recipe = self.recipe or self._new_recipe()
        self._check_engine(recipe)
        table, report = self._store.open_or_create(recipe), AddReport()
        level(other._current(), self._store, table, self._needed_engine(), recipe, report, progress, stopped)
        self._after_change(table)
        return report

    def near_duplicates(self, threshold: float = analysis.NEAR_DUPLICATE) -> list[list[Entry]]:
        """Group photos that a chain of cosines at or above the threshold links; the largest group first."""
        entries, vectors = self.gallery()
        return [[entries[i] for i in group] for group in analysis.near_duplicates(vectors, threshold)]

    def clusters(self, n: int) -> list[list[Entry]]:
        """Sort the photos into n clusters by k-means; the largest first, each from its centre outwards."""
        entries, vectors = self.gallery()
        return [[entries[i] for i in group] for group in analysis.clusters(vectors, n)]

    def map2d(self) -> tuple[list[Entry], np.ndarray]:
        """Lay the photos out on a plane by the vectors' first two principal components: entries, (n, 2) float32."""
        entries, vectors = self.gallery()
        return entries, analysis.map2d(vectors)

    def statistics(self) -> Statistics:
        """Count, and say how searches are done; `recall_at_10` is what `recall` measured last."""
        recipe = self.recipe
        if recipe is None:
            return Statistics(0, {}, 0, None, "exact", None)
        snapshot = self._current()
        columns = snapshot.read(["label", "nbytes"])
        labels = Counter(label for label in columns["label"] if label is not None)
        return Statistics(
            snapshot.count,
            dict(sorted(labels.items())),
            sum(columns["nbytes"]),
            recipe,
            self._how(snapshot),
            self._recall,
            " ".join(filter(None, [self._builder.error, self.doubt])),
        )

    def recall(self) -> float | None:
        """Measure recall@10 of approximate search against exact (seconds to a minute); None while search is exact."""
        snapshot = self._current()
        self._recall = approximate.measure_recall(snapshot) if self._how(snapshot) == "approximate" else None
        return self._recall

    def wait(self) -> None:
        """Return when the approximate index, if one is being built, is ready."""
        self._builder.wait()

    def _features(self, photo: Photo) -> Features:
        side = self._needed_recipe().resolution
        return self._needed_engine().features(squash(photo.rgb, side, photo.name), resolution=side)

    def _features_of(self, hit: Hit) -> Features | None:
        try:
            return self._features(self.photo(hit.sha256))
        except ValueError:  # its file is gone; the hit itself stands
            return None

    def _how(self, snapshot: Snapshot) -> str:
        if snapshot.is_exact:
            return "exact"
        if approximate.index_name(snapshot.table):
            return "approximate"
        return "building" if self._builder.is_running else "exact, from disk"

    def _current(self) -> Snapshot:
        with self._lock:
            table = self._store.latest()
            if table is None:
                raise ValueError(f"{self.path} holds no index yet; add photos first")
            if self._snapshot is None or self._snapshot.version != table.version:
                self._snapshot = Snapshot(self._store, table.version, self._ranking, EXACT_ROWS)
            return self._snapshot

    def _after_change(self, table) -> None:
        self._store.tidy(table)
        if table.count_rows() > EXACT_ROWS:
            self._builder.start(then=self.recall)

    def _needed_recipe(self) -> Recipe:
        recipe = self.recipe
        if recipe is None:
            raise ValueError(f"{self.path} holds no index yet; add photos first")
        return recipe

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
