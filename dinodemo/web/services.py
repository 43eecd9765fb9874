"""What every tab is handed: settings, the pool of engines, and how features are asked for."""

import logging
import time
from dataclasses import dataclass, field

from ..backbones import (
    BACKBONES,
    OFFLINE_DEFAULT,
    Backbone,
    HubError,
    find_local,
    imported_names,
    needs_download,
)
from ..engine.features import Features
from ..engine.pool import EnginePool
from ..io.images import Photo
from ..jobs.runs import Limits, Runs
from .openings import Openings
from .page_memory import PageMemory
from .settings import Settings

log = logging.getLogger(__name__)
PUBLIC_HOURS = 0.5  # of a training on a server for strangers


@dataclass(frozen=True)
class Run:
    """The result of one run of the network, and what the status line says about it."""

    features: Features
    milliseconds: float
    cached: bool
    status: str


@dataclass(frozen=True)
class Services:
    """Bundle what tabs share. Holds nothing of any one person."""

    settings: Settings
    pool: EnginePool
    start: "StartBackbone" = field(init=False)
    runs: Runs = field(init=False)
    page_memory: PageMemory = field(default_factory=PageMemory)
    openings: Openings = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "start", StartBackbone(self.settings, self.pool))
        object.__setattr__(self, "runs", make_runs(self.settings))
        object.__setattr__(self, "openings", Openings(self.settings.examples and not self.settings.zero_gpu))

    def prepare(self) -> None:
        """Load the backbone that pages open with, then what tabs open with; runs in a thread while pages open."""
        self.start.prepare()
        self.openings.prepare(self.start.name)

    def run(self, photo: Photo, backbone: str, resolution: int, attention: bool = False) -> Run:
        """Return a photo's features with a backbone, timed.

        Args:
            photo: To look at.
            backbone: Name.
            resolution: px.
            attention: Also the CLS attention.
        """
        engine = self.pool.get(backbone)
        started = time.perf_counter()
        features, cached = engine.features_timed(photo, int(resolution), attention=attention)
        milliseconds = (time.perf_counter() - started) * 1000
        return Run(features, milliseconds, cached, status_line(engine, features, milliseconds, cached))


def make_runs(settings: Settings) -> Runs:
    """Return the trainings of the server's folder."""
    hours = min(settings.run_hours, PUBLIC_HOURS) if settings.public else settings.run_hours
    limits = Limits(photos=settings.run_photos, hours=hours, age_days=settings.run_days)
    return Runs(settings.runs_folder(), limits)


class StartBackbone:
    """The backbone that pages open with: the one that somebody named, else the default, else the offline default."""

    def __init__(self, settings: Settings, pool: EnginePool):
        self.name, self.ready, self.problem = settings.backbone, False, ""
        self._named, self._pool = settings.backbone_named, pool

    def prepare(self) -> None:
        """Fetch it if it is not here, load it and run it once; runs in a thread while pages open already."""
        try:
            self._load()
        except (HubError, ValueError) as error:
            self.problem = str(error)
            log.error("the backbone %s cannot be had: %s", self.name, error)
            if self._named:
                return
            self.problem = f"{self.name} could not be had: {error}. The offline default runs instead."
            self.name = OFFLINE_DEFAULT
            self._load()
        finally:
            self.ready = True

    def progress(self) -> str:
        """Return a line on what the start is doing."""
        job = self._pool.downloads.running(self.name) if self._pool.downloads else None
        return f"Downloading {job.progress.sentence(self.name)}" if job else f"Loading {self.name}; results follow."

    def _load(self) -> None:
        import numpy as np

        if self._pool.downloads and needs_download(self.name):
            self._pool.downloads.start(self.name).wait()
        engine = self._pool.get(self.name)
        log.info("backbone %s, weights from %s", engine.backbone.name, find_local(self.name))
        engine.features(np.zeros((224, 224, 3), np.uint8), 224)  # imports and allocations, before somebody waits


def status_line(engine, features: Features, milliseconds: float, cached: bool) -> str:
    """Return a line on what ran where and for how long.

    Args:
        engine: That ran.
        features: That it gave.
        milliseconds: That it took.
        cached: Whether they came from the cache.
    """
    from ..engine import devices

    h, w = features.grid
    height, width = features.input_size
    how = "from the cache" if cached else f"{milliseconds:.0f} ms"
    parts = [
        f"**{engine.backbone.name}**",
        devices.describe(engine.device),
        str(engine.dtype).removeprefix("torch."),
        f"{width} × {height} px seen as {w} × {h} patches",
        how,
    ]
    return " · ".join(parts)


def backbone_choices() -> list[tuple[str, str]]:
    """Return (label, name): what is on this machine, what can be downloaded, what needs somebody's permission first."""
    here = {name for name in BACKBONES if find_local(name)}
    rows = sorted(BACKBONES.values(), key=lambda row: (row.name not in here, row.gated))
    imported = [(f"{name} · imported", name) for name in imported_names()]
    return [*imported, *((f"{row.name} · {_state(row, row.name in here)}", row.name) for row in rows)]


def _state(row: Backbone, here: bool) -> str:
    if here:
        return "ready"
    size = f"{_size(row.download_mb)} to download"
    return f"gated: needs an accepted licence and a token, {size}" if row.gated else size


def _size(megabytes: int) -> str:
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
