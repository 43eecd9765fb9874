"""Several backbones on one device: load on demand, share cache and device, drop old ones when memory is short."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import backbones
from .cache import SharedCache

if TYPE_CHECKING:
    from .engine import Engine

CACHE_BYTES = 1 << 30

log = logging.getLogger(__name__)


class EnginePool:
    """Provide engines by backbone name. Whoever still uses a dropped engine keeps it until done.

    torch is imported by the first `get`, so that a server can show its page before.

    Args:
        device: As for `Engine`.
        dtype: As for `Engine`.
        check: Called with a name; raises ValueError for a backbone that is not to be loaded.
        downloads: Where many people ask, a backbone that is not here is fetched beside the queue, and `get` says so
            instead of waiting; without it `get` fetches and waits.
    """

    def __init__(
        self,
        device: str = "auto",
        dtype: str = "auto",
        check: Callable[[str], None] | None = None,
        downloads: backbones.Downloads | None = None,
    ):
        self.downloads = downloads
        self._device, self._dtype = device, dtype
        self.check = check or (lambda name: None)
        self._cache = SharedCache(CACHE_BYTES)
        self._device_lock = threading.Lock()
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> "Engine":
        """Return the engine of a backbone; loads it once, however many ask at the same time.

        A folder whose weights have been replaced since is loaded again.

        Raises ValueError for a backbone that is unknown or may not be loaded, RuntimeError for one that cannot be had
        or, with `downloads`, is still on its way.
        """
        self.check(name)
        name = backbones.canonical_name(name)
        if engine := self._loaded(name):
            return engine
        if self.downloads is not None and backbones.needs_download(name):
            raise self.downloads.pending(name)
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            if engine := self._loaded(name):
                return engine
            from .engine import Engine

            self._make_room(name)
            engine = Engine(name, self._device, self._dtype, cache=self._cache, device_lock=self._device_lock)
            with self._lock:
                self._engines[name] = engine
            return engine

    def loaded(self) -> list[str]:
        """Return the names of the loaded backbones, the most recently used last."""
        with self._lock:
            return list(self._engines)

    def _loaded(self, name: str) -> "Engine | None":
        """Return the engine that runs, unless other weights lie in its folder by now."""
        with self._lock:
            engine = self._engines.get(name)
            if engine is None or engine.is_outdated():
                return None
            self._engines.move_to_end(name)
            return engine

    def _make_room(self, name: str) -> None:
        """Drop the engines used longest ago until the new one fits twice (weights and work)."""
        from . import devices

        row = backbones.BACKBONES.get(name)
        needed = 2 * (row.download_mb if row else 500) * 1_000_000
        device = devices.choose_device(self._device)
        while devices.free_memory(device) < needed:
            with self._lock:
                if not self._engines:
                    return
                dropped, _ = self._engines.popitem(last=False)
            log.info("dropped %s to make room for %s", dropped, name)
