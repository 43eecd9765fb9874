"""What every tab is handed: settings, the pool of engines, and how features are asked for."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..backbones import BACKBONES, find_local
from ..features import Features
from ..images import Photo, fit_within
from ..pool import EnginePool
from ..settings import Settings

LONGEST_SIDE = 2048  # pixels kept of a photo: twice the highest resolution of the network
DISPLAY_SIDE = 1024  # pixels of the pictures on the page
ENGINE_QUEUE = {"concurrency_id": "engine", "concurrency_limit": 4}  # of every event that runs the network


@dataclass(frozen=True)
class Run:
    """Hold what one run of the network gave, and what the status line tells about it."""

    features: Features
    milliseconds: float
    cached: bool
    status: str


@dataclass(frozen=True)
class Services:
    """Bundle what tabs share. Holds nothing of any one person."""

    settings: Settings
    pool: EnginePool

    def run(self, photo: Photo, backbone: str, resolution: int, attention: bool = False) -> Run:
        """Compute a photo's features with a backbone, timed."""
        engine = self.pool.get(backbone)
        started = time.perf_counter()
        features, cached = engine.features_timed(photo, int(resolution), attention=attention)
        milliseconds = (time.perf_counter() - started) * 1000
        return Run(features, milliseconds, cached, status_line(engine, features, milliseconds, cached))


def status_line(engine, features: Features, milliseconds: float, cached: bool) -> str:
    """Tell in one line what ran where and for how long."""
    from .. import devices

    h, w = features.grid
    height, width = features.input_size
    how = "from the cache" if cached else f"{milliseconds:.0f} ms"
    parts = [f"**{engine.backbone.name}**", devices.describe(engine.device), str(engine.dtype).removeprefix("torch."),
             f"{width} × {height} px seen as {w} × {h} patches", how]  # fmt: skip
    return " · ".join(parts)


def made_with(features: Features) -> str:
    """Tell in a sentence which backbone made a result; goes into every download."""
    return made_with_name(features.backbone)


def made_with_name(backbone: str) -> str:
    """Tell the same from a backbone's name."""
    row = BACKBONES.get(backbone)
    name = os.path.basename(backbone) if os.path.isabs(backbone) else backbone  # no folders of the server
    return f"Made by dinodemo with {name}. {row.notice if row else ''}".strip()


def stem(name: str) -> str:
    """Make a file name's stem safe to use in a download's name."""
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name).stem)
    return kept[:60] or "picture"


def shrink(photo: Photo) -> Photo:
    """Limit a photo to `LONGEST_SIDE`: what is kept in a person's session."""
    rgb = fit_within(photo.rgb, LONGEST_SIDE)
    return photo if rgb is photo.rgb else Photo(rgb, photo.name)


def backbone_choices() -> list[tuple[str, str]]:
    """List (label, name) of the table's backbones, those on this machine first."""
    here = {name for name in BACKBONES if find_local(name)}
    rows = sorted(BACKBONES.values(), key=lambda row: row.name not in here)
    return [
        (f"{row.name} · ready" if row.name in here else f"{row.name} · {_size(row.download_mb)} to download", row.name)
        for row in rows
    ]


def _size(megabytes: int) -> str:
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
