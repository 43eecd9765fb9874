"""Filling an index on many machines: Ray decodes on their CPUs and computes on their GPUs, one process writes."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..backbones import resolve
from ..backbones.identity import Identity, identify
from ..tasks.retrieval.adding import Known, Prepared, prepare, to_row
from ..tasks.retrieval.descriptor import describe
from ..tasks.retrieval.moves import Seen
from ..tasks.retrieval.sources import Item, Problem
from ..tasks.retrieval.store import Recipe, Row

if TYPE_CHECKING:
    import pyarrow as pa

ITEMS_A_TASK = 128  # photos that are begun anew when a machine is lost
BATCH = 128  # of squares for the network, which cuts it to its memory
DECODE_SHARE = 0.25  # of the CPUs, where the network runs on CPUs too


class Cluster:
    """Stands in for an Engine where photos are added to an index: `ImageIndex(path, c).add(source, make_rows=c.rows)`.

    Uses the cluster that `RAY_ADDRESS` names or that runs on this machine, else starts one here.

    Args:
        backbone: As for `backbones.resolve`; every machine needs its weights.
        workers: Processes that run the network. None: one a GPU, or on a cluster without GPUs three quarters of its
            CPUs.

    Raises:
        RuntimeError: Where Ray is not installed.
    """

    def __init__(self, backbone: str | None, workers: int | None = None):
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers!r}")
        self._ray = _connect()
        self._workers = workers
        self.backbone, folder = resolve(backbone)
        self.identity: Identity = identify(self.backbone.name, folder)
        self._name = self.backbone.name

    def rows(
        self,
        _engine: object,
        items: Iterable[Item],
        recipe: Recipe,
        known: Known,
        store: bool,
        stopped: Callable[[], bool],
        left_out: Callable[[Problem | Seen | None], None],
    ) -> Iterator[Row]:
        """Yield a row for each new photo, as `adding.rows` does, but in the order in which machines finish them.

        Photos in the hands of a process or machine that is lost are given to another. Arguments as of `adding.rows`.

        Args:
            _engine: Not used; the machines have their own.
            items: Of `open_source`.
            recipe: How the index makes its vectors.
            known: Photos that the index holds already.
            store: Keep every photo's own bytes in its row.
            stopped: Asked before every photo.
            left_out: Called for each item that gives no row.

        Raises:
            ValueError: For photos that other machines cannot read by their path (members of zips, uploads).
        """
        todo = []
        for item in items:
            if known.has_file(item):
                left_out(None)
            else:
                todo.append(_checked(item))
        if not todo:
            return
        for outcome in self._outcomes(todo, recipe, known, store):
            if not isinstance(outcome, Row):
                left_out(outcome)
            elif bytes.fromhex(outcome.sha256) in known.digests:  # a twin in another process's hands
                left_out(None)
            else:
                known.digests.add(bytes.fromhex(outcome.sha256))
                yield outcome
            if stopped():
                return

    def _outcomes(
        self, items: list[Item], recipe: Recipe, known: Known, store: bool
    ) -> Iterator[Row | Problem | Seen | None]:
        from ray.data import ActorPoolStrategy, from_arrow

        decoders, networks, gpus = share_out(self._ray.cluster_resources(), self._workers)
        parts = [items[start : start + ITEMS_A_TASK] for start in range(0, len(items), ITEMS_A_TASK)]
        found = from_arrow([pack(part) for part in parts])
        found = found.map_batches(
            Decoder,
            fn_constructor_args=(frozenset(known.digests), recipe.resolution, store),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ActorPoolStrategy(min_size=1, max_size=decoders),
        )
        found = found.map_batches(
            Network,
            fn_constructor_args=(self._name, recipe),
            batch_size=BATCH,
            batch_format="pyarrow",
            num_cpus=1,
            num_gpus=gpus,
            compute=ActorPoolStrategy(size=networks),
        )
        for table in found.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from unpack(table)


class Decoder:
    """Read, decode and shrink photos: the process on a CPU."""

    def __init__(self, digests: frozenset[bytes], side: int, store: bool):
        self._known, self._side, self._store = Known(set(digests)), side, store

    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn items into what `adding.prepare` makes of them."""
        return pack(prepare(item, self._side, self._known, self._store) for item in unpack(table))


class Network:
    """Compute vectors: the process that holds a GPU, where there is one."""

    def __init__(self, backbone: str, recipe: Recipe):
        from ..engine.engine import Engine

        self._engine, self._recipe = Engine(backbone), recipe
        if self._engine.backbone.name != recipe.backbone:
            raise RuntimeError(
                f"a machine of the cluster has {self._engine.backbone.name} in the place of {recipe.backbone}; fetch "
                "the same weights on all of them, or let DINODEMO_WEIGHTS name a folder that they share"
            )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Put rows in the place of prepared photos; problems and known photos pass through."""
        outcomes = unpack(table)
        positions = [i for i, one in enumerate(outcomes) if isinstance(one, Prepared)]
        photos = [outcomes[i].photo for i in positions]
        vectors = describe(self._engine, photos, self._recipe.resolution, self._recipe.descriptor)
        for i, vector in zip(positions, vectors, strict=True):
            outcomes[i] = to_row(outcomes[i], self._recipe, vector)
        return pack(outcomes)


def share_out(resources: dict[str, float], workers: int | None) -> tuple[int, int, int]:
    """Return how many decoders and how many networks a cluster runs, and the GPUs of each network (0 or 1).

    Args:
        resources: The result of `ray.cluster_resources()`.
        workers: Processes that run the network, None for as many as fit.

    Raises:
        ValueError: When the cluster is too small.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    networks = workers or gpus or max(1, cpus - max(1, int(DECODE_SHARE * cpus)))
    if cpus < networks + 1 or (gpus and networks > gpus):
        raise ValueError(
            f"the cluster has {cpus} CPUs and {gpus} GPUs, too few for {networks} processes that run the network and "
            "one that decodes; each takes a CPU (and, where there are any, a GPU): ask for fewer --workers"
        )
    return cpus - networks, networks, min(gpus, 1)


def pack(values: Iterable[object]) -> pa.Table:
    """Make a table of any values, one a row: Ray counts and moves bytes, and asks nothing of what they mean."""
    import pyarrow as pa

    return pa.table({"pickle": pa.array([pickle.dumps(value) for value in values], pa.large_binary())})


def unpack(table: pa.Table) -> list:
    """Return the values of a table that `pack` made."""
    return [pickle.loads(value) for value in table["pickle"].to_pylist()]


def _checked(item: Item) -> Item:
    if item.stamp is None and "://" not in item.path:
        raise ValueError(f"{item.path} cannot be read by other machines; unpack zips into a folder that all can read")
    return item


def _connect():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RuntimeError(
            f"Ray is not installed ({error}); install it with `pip install 'dinodemo[ray]'`, on every machine alike"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the index tells the progress; errors are raised
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
