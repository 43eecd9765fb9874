"""Patch PCA: the main directions of the patch tokens as colours, jointly for several photos.

The recipe of DINOv2 (Oquab et al. 2023, arXiv:2304.07193, fig. 1): a first PCA separates the subject from the
background by its first component, a second one on the subject's patches gives the colours.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...backbones.identity import Identity, check
from ...engine.features import Features
from ...io.files import whole_file
from ...io.zips import unpacked_size
from ..estimator import Estimator

MOST_ARRAYS = 32  # in a saved basis
MAX_FILE_BYTES = 16_000_000  # of a saved basis when unpacked; a real one has well under 1 MB
PERCENTILES = (1, 99)  # of the fitted scores become 0 and 1; robust against single patches


class PatchPCA(Estimator):
    """Fit colours on the patches of one or more photos, so that the same part gets the same colour in each.

    Learned: mean_ (D,), components_ (n, D), explained_variance_ratio_ (n,), threshold_ (None without foreground),
    backbone_, identity_ (which weights it was fitted with; None where that is not known), and the first component that
    separates the foreground.

    Args:
        n_components: How many components to keep, 3 to 16.
        foreground: "auto" (Otsu's threshold on the first component), a threshold from 0 to 1, or None to colour every
            patch.
    """

    def __init__(self, n_components: int = 3, foreground: str | float | None = "auto"):
        self.n_components, self.foreground = n_components, foreground

    def fit(self, features: Sequence[Features]) -> "PatchPCA":
        """Fit on the patches of all features, return self; raises ValueError for mixed backbones or too few patches."""
        self._check(features)
        patches = np.concatenate([f.patches.reshape(-1, f.patches.shape[-1]) for f in features])
        self.backbone_, self.identity_ = features[0].backbone, features[0].identity
        self._fit_foreground(patches, np.concatenate([_border(f).ravel() for f in features]))
        subject = patches if self.threshold_ is None else patches[self.separate(patches) > self.threshold_]
        if len(subject) < self.n_components + 1:
            raise ValueError(
                f"only {len(subject)} foreground patches are left, {self.n_components + 1} are needed; "
                "lower the foreground threshold, switch it off or raise the resolution"
            )
        pca = fit_pca(subject, self.n_components)
        self.mean_, self.components_ = pca.mean_, pca.components_
        self.explained_variance_ratio_ = pca.explained_variance_ratio_
        scores = pca.transform(subject)
        self.low_, self.high_ = np.percentile(scores, PERCENTILES, axis=0).astype(np.float32)
        return self

    def transform(self, f: Features, components: Sequence[int] = (0, 1, 2)) -> np.ndarray:
        """Return the colours of one photo, (h, w, 3) float32 RGB in [0, 1], nan off the foreground.

        Args:
            f: Features of the photo.
            components: Which of the fitted components become red, green and blue, counted from 0.
        """
        self._check_fitted(f)
        chosen = list(components)
        if len(chosen) != 3 or not all(0 <= c < len(self.components_) for c in chosen):
            raise ValueError(f"components must be three numbers from 0 to {len(self.components_) - 1}, got {chosen}")
        scores = (f.patches - self.mean_) @ self.components_[chosen].T  # [h, w, 3]
        spread = np.maximum(self.high_ - self.low_, 1e-12)[chosen]
        colours = np.clip((scores - self.low_[chosen]) / spread, 0, 1).astype(np.float32)
        colours[~self.foreground_mask(f)] = np.nan
        return colours

    def foreground_mask(self, f: Features) -> np.ndarray:
        """Return which patches count as foreground: (h, w) bool."""
        self._check_fitted(f)
        if self.threshold_ is None:
            return np.ones(f.grid, dtype=bool)
        return self.first_component(f) > self.threshold_

    def first_component(self, f: Features) -> np.ndarray:
        """Return the separating component (h, w): about 0 for background, 1 for foreground."""
        self._check_fitted(f)
        return self.separate(f.patches)

    def save(self, path: str | Path) -> None:
        """Write the fitted basis as .npz (exactly to `path`)."""
        if not hasattr(self, "components_"):
            raise ValueError("nothing is fitted yet; call fit first")
        threshold = np.nan if self.threshold_ is None else self.threshold_
        with whole_file(Path(path)) as part, part.open("wb") as stream:
            np.savez(
                stream,
                backbone=self.backbone_,
                identity="" if self.identity_ is None else self.identity_.to_json(),
                mean=self.mean_,
                components=self.components_,
                low=self.low_,
                high=self.high_,
                explained=self.explained_variance_ratio_,
                threshold=threshold,
                first_mean=self._first_mean,
                first_axis=self._first_axis,
                first_range=self._first_range,
            )

    @classmethod
    def load(cls, path: str | Path) -> "PatchPCA":
        """Return a basis that `save` wrote; raises ValueError for any other file."""
        try:
            data = _read_arrays(path)
            pca = cls(n_components=len(data["components"]))
            pca.backbone_, pca.identity_ = str(data["backbone"]), Identity.from_json(str(data.get("identity", "")))
            pca.mean_, pca.components_ = data["mean"], data["components"]
            pca.low_, pca.high_, pca.explained_variance_ratio_ = data["low"], data["high"], data["explained"]
            pca.threshold_ = None if np.isnan(data["threshold"]) else float(data["threshold"])
            pca._first_mean, pca._first_axis = data["first_mean"], data["first_axis"]
            pca._first_range = data["first_range"]
            pca.foreground = pca.threshold_
            pca._check_shapes()
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            AttributeError,
            MemoryError,
            zipfile.BadZipFile,
        ) as error:
            raise ValueError(f"{Path(path).name} is not a PCA basis saved by this app ({error})") from error
        return pca

    def check(self, backbone: str, identity: Identity | None) -> str:
        """Check that the basis was fitted with the network at hand.

        Args:
            backbone: its name.
            identity: its weights, as `Features.identity` and `Engine.identity` have them.

        Returns:
            A warning for a basis that does not record its weights (version 0.1), else an empty text.

        Raises:
            ValueError: When another network, or the same with other weights, made it; or when nothing is fitted.
        """
        if not hasattr(self, "components_"):
            raise ValueError("nothing is fitted yet; call fit first")
        unknown = self.identity_ is None or identity is None
        if unknown and backbone != self.backbone_:
            raise ValueError(
                f"this basis was fitted on {self.backbone_}, the photo's features come from {backbone}; "
                "choose the same backbone or fit again"
            )
        return check(self.identity_, identity, "this basis", "choose the same backbone, or fit again")

    def _fit_foreground(self, patches: np.ndarray, on_border: np.ndarray) -> None:
        pca = fit_pca(patches, 1)
        self._first_mean, self._first_axis = pca.mean_, pca.components_[0]
        scores = (patches - self._first_mean) @ self._first_axis
        # subjects touch the border less than backgrounds do: the sign that puts the border low
        if on_border.any() and not on_border.all() and scores[on_border].mean() > scores[~on_border].mean():
            self._first_axis, scores = -self._first_axis, -scores
        self._first_range = np.percentile(scores, PERCENTILES).astype(np.float32)
        if self.foreground is None:
            self.threshold_ = None
        elif self.foreground == "auto":
            self.threshold_ = otsu_threshold(self.separate(patches))
        else:
            self.threshold_ = float(self.foreground)

    def separate(self, patches: np.ndarray) -> np.ndarray:
        """Return the separating component (...) of patch tokens (..., D)."""
        low, high = self._first_range
        return ((patches - self._first_mean) @ self._first_axis - low) / max(high - low, 1e-12)

    def _check(self, features: Sequence[Features]) -> None:
        if not features:
            raise ValueError("no photos to fit on; give at least one")
        names = sorted({f.backbone for f in features})
        if len(names) > 1:
            raise ValueError(f"photos must share one backbone, these come from {', '.join(names)}")
        if len({f.identity.sha256 for f in features if f.identity}) > 1:
            raise ValueError(f"photos must share one backbone, these come from {names[0]} with different weights")
        if not 3 <= self.n_components <= 16:
            raise ValueError(f"n_components must be from 3 to 16, got {self.n_components}")
        if not (self.foreground in ("auto", None) or 0 <= float(self.foreground) <= 1):
            raise ValueError(f'foreground must be "auto", None or from 0 to 1, got {self.foreground!r}')

    def _check_fitted(self, f: Features) -> None:
        self.check(f.backbone, f.identity)
        if f.patches.shape[-1] != len(self.mean_):
            raise ValueError(
                f"this basis has {len(self.mean_)} numbers a patch, the photo's features from {f.backbone} have "
                f"{f.patches.shape[-1]}; choose the same backbone or fit again"
            )

    def _check_shapes(self) -> None:
        n, width = self.components_.shape
        shapes = [self.mean_.shape, self._first_mean.shape, self._first_axis.shape]
        if shapes != [(width,)] * 3 or self.low_.shape != (n,) or self.high_.shape != (n,) or n < 3:
            raise ValueError("its arrays do not fit together")
        if self._first_range.shape != (2,):
            raise ValueError("its range is damaged")


def otsu_threshold(values: np.ndarray, bins: int = 256) -> float:
    """Return the threshold that maximises the variance between two classes (Otsu 1979).

    Args:
        values: About 0 to 1, of any shape.
        bins: Of the histogram.
    """
    counts, edges = np.histogram(np.clip(values, 0, 1), bins=bins, range=(0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts)
    total, moment = weight[-1], np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * weight - moment * total) ** 2 / (weight * (total - weight))
    return float(edges[1:][np.nanargmax(np.where(np.isfinite(between), between, 0))])


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    if unpacked_size(Path(path), MOST_ARRAYS) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def fit_pca(patches: np.ndarray, n: int):
    """Return scikit-learn's PCA with n axes, fitted on patch tokens (patches, D)."""
    from sklearn.decomposition import PCA  # slow to import, needed only here

    return PCA(n_components=n, svd_solver="covariance_eigh").fit(patches)


def _border(f: Features) -> np.ndarray:
    """Mark the outermost ring of patches: (h, w) bool."""
    mask = np.zeros(f.grid, dtype=bool)
    mask[[0, -1], :] = True
    mask[:, [0, -1]] = True
    return mask
