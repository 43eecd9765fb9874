"""The API's `compare`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...engine.provenance import made_with
from ...web.api_values import File, made, network, number, one_of, read_photo, truth, whole
from ...web.services import Services
from . import draw
from .pairs import compare as compute_pair

MODELS = {model or "any": name for name, model in draw.MODELS.items()}


def functions(services: Services) -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (CompareApi(services).compare,)


@dataclass(frozen=True)
class CompareApi:
    """The API of this task; its docstrings are what callers read."""

    services: Services

    def compare(
        self, first: File, second: File, count: int = 40, least: float = 0.4, model: Literal[tuple(MODELS)] = "any",
        placeless: bool = True, backbone: str = "", resolution: int = 518,
    ) -> tuple[File, File, dict]:  # fmt: skip
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
        key = network(self.services, backbone, resolution)
        look = draw.Look(whole(count, "count", 1, 200), number(least, "least", -1, 1),
                                 MODELS[one_of(model, "model", list(MODELS))])  # fmt: skip
        photos = (read_photo(first, "first"), read_photo(second, "second"))
        pair = compute_pair(self.services, photos, None, truth(placeless, "placeless"), *key)
        told = {"backbone": pair.features[0].backbone, "made_with": made_with(pair.features[0]),
                "cls_cosine": round(draw.similarity(*pair.features), 5), "mutual": len(pair.matches),
                "chosen": len(draw.chosen(pair, look))}  # fmt: skip
        return made(draw.lines_file(pair, look)), made(draw.table_file(pair, look)), told
