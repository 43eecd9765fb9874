"""The API's `attention`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...io.render import COLOUR_MAPS
from ...web.api_values import File, about, made, network, number, one_of, read_photo, truth, whole
from ...web.services import Services
from . import draw

ColourMap = Literal[tuple(COLOUR_MAPS)]


def functions(services: Services) -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (AttentionApi(services).attention,)


@dataclass(frozen=True)
class AttentionApi:
    """The API of this task; its docstrings are what callers read."""

    services: Services

    def attention(
        self, photo: File, head: str = "mean", layer: int = 0, mass: float = 1.0, opacity: float = 0.6,
        colour_map: ColourMap = "inferno", smooth: bool = True, backbone: str = "", resolution: int = 518,
    ) -> tuple[File, File, dict]:  # fmt: skip
        """Draw where the network looks. Returns the overlay (.png), the numbers (.npz) and a summary.

        Parameters:
            photo: a picture of any usual format
            head: mean, max, or a head's number from 1
            layer: counted from 1; 0 is the last
            mass: show only the strongest patches that hold this share of the attention, 0.001 to 1
            opacity: of the map over the photo, 0 to 1
            colour_map: of the map
            smooth: false draws one square a patch
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        name, side = network(self.services, backbone, resolution)
        mass, opacity = number(mass, "mass", 0.001, 1), number(opacity, "opacity", 0, 1)
        colours, smooth = one_of(colour_map, "colour_map", list(COLOUR_MAPS)), truth(smooth, "smooth")
        row = self.services.pool.get(name).backbone
        head = one_of(str(head), "head", ["mean", "max", *(str(i + 1) for i in range(row.heads))])
        layer = whole(layer, "layer", 0, row.depth) or row.depth
        given = read_photo(photo, "photo")
        run = self.services.run(given, name, side, attention=True)
        view = draw.View(given, run.features, (name, side), run.status)
        look = draw.Look(layer, head, 100 * mass, opacity, colours, smooth)
        told = {**about(run.features), "layer": layer, "head": head, "note": draw.note(view, look)}
        return made(draw.picture_file(view, look)), made(draw.raw_file(view)), told
