"""What the PCA tab draws: photos and features in, coloured pictures and sentences out. No Gradio."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ...engine.features import Features
from ...engine.provenance import made_with
from ...io.files import plural, stem
from ...io.images import Photo, fit_within
from ...io.render import pca_picture, png_bytes
from .. import base as shared
from ..base import Option
from .basis import PatchPCA

KEPT_COMPONENTS = 8
SHOWN_SIDE = 768  # pixels of a picture on the page
MOST_PHOTOS = 8
CAPTION = "{} · {} foreground"
Foreground = Literal["auto", "manual", "off"]
FOREGROUND = Option(
    "foreground",
    "auto",
    "Background removal",
    "auto finds a threshold, manual takes yours, off colours everything",
    choices=get_args(Foreground),
    labels=("Automatic", "Threshold", "Off"),
)
THRESHOLD = Option("threshold", 0.5, "Foreground threshold", "of manual", step=0.01)
SMOOTH = shared.SMOOTH.changed(default=False, label="Smooth")
BACKDROP = Option("backdrop", False, "Show dimmed photo", "show the photo, dimmed, where there is no colour")
SIDE_BY_SIDE = Option("side_by_side", False, "Show original", "the photo next to its colours")
CHANNELS = tuple(
    Option(name.lower(), i, f"{name} is component", "counted from 1", 1, KEPT_COMPONENTS, 1)
    for i, name in enumerate(("Red", "Green", "Blue"), start=1)
)


@dataclass(frozen=True)
class View:
    """One person's photos and their features."""

    photos: tuple[Photo, ...]
    features: tuple[Features, ...]
    key: tuple[str, int]  # backbone asked for, resolution
    status: str


@dataclass(frozen=True)
class Look:
    """The controls' values: foreground is "auto", "manual" or "off"; components count from 1."""

    foreground: str
    threshold: float
    red: int
    green: int
    blue: int
    smooth: bool
    backdrop: bool
    side_by_side: bool

    @property
    def components(self) -> tuple[int, int, int]:
        return int(self.red) - 1, int(self.green) - 1, int(self.blue) - 1


def fit(view: View, look: Look, basis: PatchPCA | None = None) -> PatchPCA:
    """Return the loaded basis if there is one, else fit a joint one on all photos."""
    if basis is not None:
        return basis
    foregrounds: dict[str, str | float | None] = {"auto": "auto", "manual": float(look.threshold), "off": None}
    return PatchPCA(KEPT_COMPONENTS, foregrounds[look.foreground]).fit(view.features)


def draw(view: View, look: Look, pca: PatchPCA, side: int = SHOWN_SIDE) -> list[tuple[np.ndarray, str]]:
    """Colour every photo; returns (picture, caption) pairs, pictures at most `side` pixels long."""
    pictures = []
    for photo, f in zip(view.photos, view.features, strict=True):
        small = fit_within(photo.rgb, side)
        colours = pca.transform(f, look.components)
        picture = pca_picture(colours, small.shape[:2], look.smooth, small if look.backdrop else None)
        if look.side_by_side:
            picture = np.concatenate([small, picture], axis=1 if small.shape[0] >= small.shape[1] else 0)
        share = np.isfinite(colours[..., 0]).mean()
        pictures.append((picture, CAPTION.format(photo.name, f"{share:.0%}")))
    return pictures


def sentences(view: View, pca: PatchPCA, loaded: bool) -> dict[str, str]:
    """Return the texts of the tab, with gaps `{}` for what the controls change."""
    doubt = loaded and view.features and pca.check(view.features[0].backbone, view.features[0].identity)
    origin = (
        f"loaded from a file{f' ({doubt})' if doubt else ''}"
        if loaded
        else f"fitted jointly on {plural(len(view.photos), 'photo')}"
    )
    return {
        "basis": f"Basis {origin}. Foreground: {{}}.",
        "off": "off",
        "above": "first component above {}",
        "variance": "Explained variance, by component: {}; together {}.",
        "caption": CAPTION,
    }


def explain(view: View, look: Look, pca: PatchPCA, loaded: bool) -> str:
    """Return sentences on the explained variance, the threshold in use and where the basis comes from."""
    ratios, words = pca.explained_variance_ratio_, sentences(view, pca, loaded)
    shown = dict(zip(look.components, ("red", "green", "blue"), strict=True))
    each = " · ".join(
        f"{i}: {ratio:.1%}{f' ({shown[i - 1]})' if i - 1 in shown else ''}" for i, ratio in enumerate(ratios, start=1)
    )
    cut = words["off"] if pca.threshold_ is None else words["above"].format(f"{pca.threshold_:.2f}")
    return f"{words['basis'].replace('{}', cut)}\n\n{words['variance'].format(each, f'{ratios.sum():.0%}')}"


def pictures_file(view: View, look: Look, pca: PatchPCA) -> tuple[str, bytes]:
    """Return the pictures as shown, at the photos' size: one PNG, or a zip of several."""
    drawn = draw(view, look, pca, max(max(photo.size) for photo in view.photos))
    backbone = stem(view.features[0].backbone)  # a folder or a hub id holds slashes
    names = [f"{i}-{stem(p.name)}-pca-{backbone}.png" for i, p in enumerate(view.photos, start=1)]
    contents = [png_bytes(picture, made_with(view.features[0])) for picture, _ in drawn]
    if len(contents) == 1:
        return names[0], contents[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in zip(names, contents, strict=True):
            archive.writestr(name, content)
    return f"pca-{backbone}.zip", buffer.getvalue()


def raw_file(view: View, look: Look, pca: PatchPCA) -> tuple[str, bytes]:
    """Return colours, first component and patch tokens of every photo as a named .npz."""
    first = view.features[0]
    arrays: dict = {
        "backbone": first.backbone,
        "made_with": made_with(first),
        "identity": first.identity.to_json() if first.identity else "",
        "names": [photo.name for photo in view.photos],
        "explained_variance_ratio": pca.explained_variance_ratio_,
    }
    for i, f in enumerate(view.features):
        arrays |= {
            f"colours_{i}": pca.transform(f, look.components),
            f"first_{i}": pca.first_component(f),
            f"patches_{i}": f.patches,
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return f"pca-{stem(view.features[0].backbone)}.npz", buffer.getvalue()


def basis_file(pca: PatchPCA, folder: Path) -> tuple[str, bytes]:
    """Return the fitted basis as a named .npz that `PatchPCA.load` reads; `folder` is for the file in between."""
    path = folder / "basis.npz"
    pca.save(path)
    return f"pca-basis-{stem(pca.backbone_)}.npz", path.read_bytes()
