"""Which probes can be picked: the ready ones, published heads, and a person's own."""

import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...backbones import needs_download, weights_root
from ...backbones.identity import Identity
from ...io.files import resource_folder, stem
from ...io.images import Photo

if TYPE_CHECKING:  # they need torch, which is loaded only once the page is served
    from ...web.services import Services
    from . import DepthProbe

WEIGHTS = resource_folder("weights")
READY = "depth_rooms_*.safetensors"
READY_KEY, META_KEY, DPT_KEY, OWN_KEY = "ready:", "meta:", "dpt:", "own:"
Own = tuple[tuple[str, "DepthProbe"], ...]  # a person's probes by name


@dataclass(frozen=True)
class Estimate:
    """What a probe says of a photo.

    Args:
        depth: (H, W) float32, larger is farther.
        unit: "metres" or "relative".
        name, note, card: of the probe; models of their own have no card.
        inside: whether the photo is like the probe's training pictures; None where not known.
        message: what the reader should know first.
        identity: of the network that ran.
    """

    depth: np.ndarray
    unit: str
    name: str
    note: str
    card: dict | None
    inside: bool | None = None
    message: str = ""
    identity: Identity | None = None


@dataclass
class ProbeStore:
    """Find and load probes; heavy ones, which several people share, stay loaded."""

    services: "Services"
    _dpt: dict = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choices(self, backbone: str, own: Own = ()) -> list[tuple[str, str]]:
        """List (label, key) of what fits a backbone, a person's own first; the big DPT models bring their own."""
        from . import official_heads  # not above: they bring torch
        from .dpt import DPT_MODELS

        rows = [(f"Mine: {name}", OWN_KEY + name) for name, probe in reversed(own) if probe.backbone_ == backbone]
        rows += self.ready(backbone)
        rows += [(f"Meta: {head.label}", META_KEY + head.name) for head in official_heads(backbone)]
        return rows + [
            (f"{name.split('/')[-1]}: {row.words}, {row.megabytes} MB, {row.licence}", DPT_KEY + name)
            for name, row in DPT_MODELS.items()
        ]

    @staticmethod
    def ready(backbone: str) -> list[tuple[str, str]]:
        """List (label, key) of the probes that came with the app for a backbone."""
        paths = [path for path in sorted(WEIGHTS.glob(READY)) if path.stem.endswith(f"_{backbone}")]
        return [("Built-in: rooms (metres)", READY_KEY + path.name) for path in paths]

    @staticmethod
    def load(key: str, own: Own = ()) -> "DepthProbe":
        """Return the probe of a key; raises ValueError or RuntimeError, with what to do, when it cannot be had."""
        from . import DepthProbe, fetch_official

        if key.removeprefix(OWN_KEY) in dict(own):
            return dict(own)[key.removeprefix(OWN_KEY)]
        if key.startswith(READY_KEY):
            return DepthProbe.load(WEIGHTS / Path(key.removeprefix(READY_KEY)).name)
        if key.startswith(META_KEY):
            return DepthProbe.from_meta(fetch_official(key.removeprefix(META_KEY), weights_root() / "depth_heads"))
        raise ValueError(f"no depth probe is called {key!r}; pick one of the list")

    def estimate(
        self,
        key: str,
        own: Own,
        photo: Photo,
        backbone: str,
        resolution: int,
        flip: bool,
        guided: bool,
        metres: bool = False,
    ) -> Estimate:
        """Estimate a photo's depth with the probe of a key; metres: also where the probe does not know such photos."""
        if key.startswith(DPT_KEY):
            return self._estimate_dpt(key.removeprefix(DPT_KEY), photo, resolution)
        from .card import check_engine

        probe = self.load(key, own)
        engine = self.services.pool.get(backbone)
        found = probe.estimate(engine, photo, flip, guided, resolution, metres)
        message = " ".join(text for text in (found.message, check_engine(probe, engine)) if text)
        name = key.split(":", 1)[1].removesuffix(".safetensors")
        return Estimate(found.depth, found.unit, name, probe.note_, probe.card_, found.inside, message, engine.identity)

    def _estimate_dpt(self, name: str, photo: Photo, resolution: int) -> Estimate:
        from .dpt import DPT_MODELS, DptDepth

        if name not in DPT_MODELS:  # it may name a folder too, and that is not for the page to choose
            raise ValueError(f"no DPT model is called {name!r}; pick one of the list")
        downloads = self.services.pool.downloads
        if downloads and needs_download(name):  # gigabytes: nobody waits for them in the engine's queue
            raise downloads.pending(name)
        with self._lock:
            model = self._dpt.get(name) or self._dpt.setdefault(
                name, DptDepth(name, device=self.services.settings.device)
            )
        row = DPT_MODELS[name]
        note = f"{name}: {row.words}, {row.licence}, with its own backbone."
        return Estimate(model.predict(photo, resolution=resolution), model.unit_, name, note, None)


def probe_file(own: Own) -> tuple[str, bytes]:
    """Return the newest of a person's probes as a file; raises ValueError when there is none."""
    if not own:
        raise ValueError("there is no probe of your own yet; train one first")
    name, probe = own[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.safetensors"
        probe.save(path)
        return f"depth-{stem(name)}.safetensors", path.read_bytes()
