"""The API's `attention`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...web.api_values import File, about, as_file, check_backbone, check_int, read_photo
from ..base import COLOUR_MAP, OPACITY, RESOLUTION, SMOOTH
from . import draw

if TYPE_CHECKING:
    from ...web.services import Services

    ColourMap = str
else:
    ColourMap = Literal[COLOUR_MAP.choices]  # what Gradio tells callers


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (AttentionApi(services).attention,)


@dataclass(frozen=True)
class AttentionApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"

    def attention(
        self,
        photo: File,
        head: str = draw.HEAD.default,
        layer: int = 0,
        mass: float = draw.MASS.default,
        opacity: float = OPACITY.default,
        colour_map: ColourMap = COLOUR_MAP.default,
        smooth: bool = SMOOTH.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[File, File, dict]:
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
        name, side = check_backbone(self.services, backbone, resolution)
        mass, opacity = draw.MASS.check(mass), OPACITY.check(opacity)
        colours, smooth = COLOUR_MAP.check(colour_map), SMOOTH.check(smooth)
        row = self.services.pool.get(name).backbone
        head = draw.head_option(row.heads).check(str(head))
        layer = check_int(layer, "layer", 0, row.depth) or row.depth
        given = read_photo(photo, "photo")
        run = self.services.run(given, name, side, attention=True)
        view = draw.View(given, run.features, (name, side), run.status)
        look = draw.Look(layer, head, 100 * mass, opacity, colours, smooth)
        summary = {**about(run.features), "layer": layer, "head": head, "note": draw.note(view, look)}
        return as_file(draw.picture_file(view, look)), as_file(draw.raw_file(view)), summary
