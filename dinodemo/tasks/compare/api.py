"""The API's `compare`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...engine.provenance import made_with
from ...web.api_values import File, as_file, check_backbone, read_photo
from ..base import RESOLUTION
from . import draw
from .pairs import compare as compute_pair

if TYPE_CHECKING:
    from ...web.services import Services


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (CompareApi(services).compare,)


@dataclass(frozen=True)
class CompareApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"

    def compare(
        self,
        first: File,
        second: File,
        count: int = draw.COUNT.default,
        least: float = draw.LEAST.default,
        model: Literal["any", "homography", "affine"] = draw.MODEL.default,
        placeless: bool = draw.PLACELESS.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[File, File, dict]:
        """Find the parts of two photos that agree. Returns a drawing (.png), the pairs (.csv) and a summary.

        Parameters:
            first: a picture of any usual format
            second: another
            count: pairs that are drawn, 1 to 200
            least: cosine of a pair, -1 to 1
            model: only pairs that one movement explains: homography (a plane, or one view point) or affine
            placeless: ignore where in the picture a patch lies
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        key = check_backbone(self.services, backbone, resolution)
        look = draw.Look(draw.COUNT.check(count), draw.LEAST.check(least), draw.MODEL.check(model))
        photos = (read_photo(first, "first"), read_photo(second, "second"))
        pair = compute_pair(self.services, photos, None, draw.PLACELESS.check(placeless), *key)
        summary = {
            "backbone": pair.features[0].backbone,
            "made_with": made_with(pair.features[0]),
            "cls_cosine": round(draw.similarity(*pair.features), 5),
            "mutual": len(pair.matches),
            "chosen": len(draw.chosen(pair, look)),
        }
        return as_file(draw.lines_file(pair, look)), as_file(draw.table_file(pair, look)), summary
