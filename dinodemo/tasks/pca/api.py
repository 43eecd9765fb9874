"""The API's `pca`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...web.api_values import File, about, as_file, check_backbone, read_files, read_path, read_photo
from ..base import RESOLUTION
from . import draw
from .draw import MOST_PHOTOS

if TYPE_CHECKING:
    from ...web.services import Services


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (PcaApi(services).pca,)


@dataclass(frozen=True)
class PcaApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"

    def pca(
        self,
        photos: list[File],
        foreground: draw.Foreground = draw.FOREGROUND.default,
        threshold: float = draw.THRESHOLD.default,
        smooth: bool = draw.SMOOTH.default,
        backdrop: bool = draw.BACKDROP.default,
        basis: File | None = None,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[list[File], File, dict]:
        """Colour patches by what they mean, jointly over the photos. Returns pictures (.png), the basis, a summary.

        Parameters:
            photos: 1 to 8 pictures
            foreground: auto finds a threshold, manual takes yours, off colours everything
            threshold: of manual, 0 to 1
            smooth: false draws one square a patch
            backdrop: show the photo, dimmed, where there is no colour
            basis: one that an earlier call returned, to be used instead of fitting one
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        key = check_backbone(self.services, backbone, resolution)
        red, green, blue = (channel.default for channel in draw.CHANNELS)
        look = draw.Look(
            draw.FOREGROUND.check(foreground),
            draw.THRESHOLD.check(threshold),
            red,
            green,
            blue,
            draw.SMOOTH.check(smooth),
            draw.BACKDROP.check(backdrop),
            draw.SIDE_BY_SIDE.default,
        )
        files = read_files(photos, "photos", MOST_PHOTOS, least=1)
        given = tuple(read_photo(file, f"photo {i}") for i, file in enumerate(files, start=1))
        loaded = None if basis is None else draw.PatchPCA.load(read_path(basis, "basis"))
        features = tuple(self.services.run(photo, *key).features for photo in given)
        pca = draw.fit(draw.View(given, features, key, ""), look, loaded)
        single = [draw.View((p,), (f,), key, "") for p, f in zip(given, features, strict=True)]
        with tempfile.TemporaryDirectory() as folder:
            kept = as_file(draw.basis_file(pca, Path(folder)))
        ratios = [round(float(ratio), 4) for ratio in pca.explained_variance_ratio_]
        doubt = pca.check(features[0].backbone, features[0].identity)
        summary = {"photos": [about(f) for f in features], "explained_variance_ratio": ratios} | (
            {"warning": doubt} if doubt else {}
        )
        return [as_file(draw.pictures_file(view, look, pca)) for view in single], kept, summary
