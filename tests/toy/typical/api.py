"""The API: what programs may call; the docstring is what they read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinodemo.web.api_values import File, about, as_file, check_backbone, read_photo

from . import draw

if TYPE_CHECKING:
    from dinodemo.web.services import Services


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (TypicalApi(services).typical,)


@dataclass(frozen=True)
class TypicalApi:
    """The API of this task."""

    services: "Services"

    def typical(
        self, photo: File, smooth: bool = draw.SMOOTH.default, backbone: str = "", resolution: int = 518
    ) -> tuple[File, dict]:
        """Draw how much each patch is like the photo as a whole. Returns the picture (.png) and a summary.

        Parameters:
            photo: a picture of any usual format
            smooth: false draws one square a patch
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        smooth, (name, side) = draw.SMOOTH.check(smooth), check_backbone(self.services, backbone, resolution)
        given = read_photo(photo, "photo")
        f = self.services.run(given, name, side).features
        return as_file(draw.picture_file(given, f, smooth)), about(f)
