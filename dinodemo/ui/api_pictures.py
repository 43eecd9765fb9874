"""What the API draws of photos: attention, patch PCA, depth. Each docstring is what callers read."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..render import COLOUR_MAPS
from . import attention_view, depth_view, pca_view
from .api_values import File, made, network, number, one_of, read_files, read_path, read_photo, truth, whole
from .depth_probes import ProbeShelf
from .pca_tab import MOST_PHOTOS
from .services import Services, made_with, made_with_name

ColourMap = Literal[tuple(COLOUR_MAPS)]
FOREGROUNDS = ("auto", "manual", "off")


@dataclass(frozen=True)
class PictureApi:
    """Hold what these functions need; nothing of any one person."""

    services: Services
    probes: ProbeShelf

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
        view = attention_view.View(given, run.features, (name, side), run.status)
        look = attention_view.Look(layer, head, 100 * mass, opacity, colours, smooth)
        told = {**_about(run.features), "layer": layer, "head": head, "note": attention_view.note(view, look)}
        return made(attention_view.picture_file(view, look)), made(attention_view.raw_file(view)), told

    def pca(
        self, photos: list[File], foreground: Literal[FOREGROUNDS] = "auto", threshold: float = 0.5,
        smooth: bool = False, backdrop: bool = False, basis: File | None = None, backbone: str = "",
        resolution: int = 518,
    ) -> tuple[list[File], File, dict]:  # fmt: skip
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
        key = network(self.services, backbone, resolution)
        look = pca_view.Look(
            one_of(foreground, "foreground", FOREGROUNDS), number(threshold, "threshold", 0, 1), 1, 2, 3,
            truth(smooth, "smooth"), truth(backdrop, "backdrop"), False,
        )  # fmt: skip
        files = read_files(photos, "photos", MOST_PHOTOS, least=1)
        given = tuple(read_photo(file, f"photo {i}") for i, file in enumerate(files, start=1))
        loaded = None if basis is None else pca_view.PatchPCA.load(read_path(basis, "basis"))
        features = tuple(self.services.run(photo, *key).features for photo in given)
        pca = pca_view.fit(pca_view.View(given, features, key, ""), look, loaded)
        single = [pca_view.View((p,), (f,), key, "") for p, f in zip(given, features, strict=True)]
        with tempfile.TemporaryDirectory() as folder:
            kept = made(pca_view.basis_file(pca, Path(folder)))
        ratios = [round(float(ratio), 4) for ratio in pca.explained_variance_ratio_]
        told = {"photos": [_about(f) for f in features], "explained_variance_ratio": ratios}
        return [made(pca_view.pictures_file(view, look, pca)) for view in single], kept, told

    def depth(
        self, photo: File, probe: str = "", flip: bool = False, guided: bool = True,
        colour_map: ColourMap = "inferno", backbone: str = "", resolution: int = 518,
    ) -> tuple[File, File, dict]:  # fmt: skip
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
        flip, guided = truth(flip, "flip"), truth(guided, "guided")
        colours = one_of(colour_map, "colour_map", list(COLOUR_MAPS))
        made_by = self.services.pool.get(name).backbone.name
        key = self._probe(probe, made_by)
        given = read_photo(photo, "photo")
        found = self.probes.estimate(key, (), given, name, side, flip, guided)
        words = made_with_name(made_by)
        view = depth_view.View(given, found.depth, found.unit, found.name, found.note, words, ())
        near, far = depth_view.natural_range(view.depth)
        look = depth_view.Look(near, far, colours, False)
        told = {"backbone": made_by, "made_with": words, "probe": key, "unit": found.unit, "near": near, "far": far,
                "size": list(found.depth.shape), "note": found.note}  # fmt: skip
        return made(depth_view.picture_file(view, look)), made(depth_view.array_file(view)), told

    def _probe(self, asked: str, backbone: str) -> str:
        """Return the key of the probe that was asked for, or of the one that came with the backbone."""
        keys = [key for _, key in self.probes.choices(backbone)]
        ready = [key for _, key in self.probes.ready(backbone)]
        if asked == "" and not ready:
            raise ValueError(f"no depth probe came with {backbone}; probe may be one of {', '.join(keys)}")
        return ready[0] if asked == "" else one_of(asked, "probe", keys)


def _about(f) -> dict:
    return {"backbone": f.backbone, "made_with": made_with(f), "size": list(f.image_size), "grid": list(f.grid)}
