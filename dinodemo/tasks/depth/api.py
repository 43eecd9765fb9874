"""The API's `depth`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...engine.provenance import made_with_name
from ...web.api_values import File, made, network, one_of, read_photo
from ..base import COLOUR_MAP, RESOLUTION
from . import draw
from .probe_store import ProbeStore

if TYPE_CHECKING:
    from ...web.services import Services

    ColourMap = str
else:
    ColourMap = Literal[COLOUR_MAP.choices]  # what Gradio tells callers


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (DepthApi(services, ProbeStore(services)).depth,)


@dataclass(frozen=True)
class DepthApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"
    probes: ProbeStore

    def depth(
        self,
        photo: File,
        probe: str = "",
        flip: bool = draw.FLIP.default,
        guided: bool = draw.GUIDED.default,
        colour_map: ColourMap = COLOUR_MAP.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[File, File, dict]:
        """Estimate depth from one photo. Returns colours (.png), the numbers (.npy, (H, W) float32), a summary.

        The summary tells the unit (metres, or relative), the range, and on what the probe was trained.

        Parameters:
            photo: a picture of any usual format
            probe: as the page's list calls it; empty is the one that came with the backbone
            flip: average with the mirror image
            guided: follow the photo's edges
            colour_map: of the colours
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        name, side = network(self.services, backbone, resolution)
        flip, guided = draw.FLIP.check(flip), draw.GUIDED.check(guided)
        colours = COLOUR_MAP.check(colour_map)
        made_by = self.services.pool.get(name).backbone.name
        key = self._probe(probe, made_by)
        given = read_photo(photo, "photo")
        found = self.probes.estimate(key, (), given, name, side, flip, guided)
        words = made_with_name(made_by)
        view = draw.View(given, found.depth, found.unit, found.name, found.note, words, ())
        near, far = draw.natural_range(view.depth)
        look = draw.Look(near, far, colours, False)
        told = {
            "backbone": made_by,
            "made_with": words,
            "probe": key,
            "unit": found.unit,
            "near": near,
            "far": far,
            "size": list(found.depth.shape),
            "note": found.note,
        }
        return made(draw.picture_file(view, look)), made(draw.array_file(view)), told

    def _probe(self, asked: str, backbone: str) -> str:
        """Return the key of the probe that was asked for, or of the one that came with the backbone."""
        keys = [key for _, key in self.probes.choices(backbone)]
        ready = [key for _, key in self.probes.ready(backbone)]
        if asked == "" and not ready:
            raise ValueError(f"no depth probe came with {backbone}; probe may be one of {', '.join(keys)}")
        return ready[0] if asked == "" else one_of(asked, "probe", keys)
