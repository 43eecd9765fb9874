"""The classifier: labelled photos in, labels of other photos out; saved with all that says how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...backbones.identity import Identity, check
from ...io.images import DAMAGE, ImageSource, Photo, as_photo
from ...io.vectors import unit
from ..estimator import Estimator
from ..retrieval.descriptor import input_side, squash
from .cards import FORMAT, check_card, codes_are_sound
from .heads import METHODS, TOKENS, Head, LinearHead, NeighbourHead, fit, log_softmax, select
from .measure import Plan, Progress, Report, far_from_all, measure

if TYPE_CHECKING:
    from ...engine.engine import Engine

RESOLUTION = 224
GALLERY = 20_000  # photos that are kept to tell what is unlike all of them
UNLIKE = 0.99  # share of the photos fitted on that lie nearer to another one than the bound of "unknown"
UNKNOWN = "unknown"
MOST_BYTES = 2_000_000_000


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says of one photo.

    Args:
        label: The most probable class.
        probability: Of that class, 0 to 1.
        probabilities: (C,) in the order of `classes_`.
        distance: From the nearest photo that was fitted on: 1 - cosine of centred class tokens.
        is_unknown: Whether that is farther than nearly all photos fitted on lie from each other.
    """

    label: str
    probability: float
    probabilities: np.ndarray
    distance: float
    is_unknown: bool


class PhotoClassifier(Estimator):
    """Classify photos by their tokens.

    Args:
        engine: Computes the tokens; it may be given later, to `load` or as the attribute.
        method: "auto" (chosen by cross-validation), "mean", "knn" or "logistic".
        tokens: "auto", "cls", "mean" (of the patches) or "both".
        resolution: Side of the square that the network sees, in pixels.
        seed: Of the folds.

    After `fit`: `classes_`, `plan_`, `report_` (None where it was loaded), `card_`.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        method: str = "auto",
        tokens: str = "auto",
        resolution: int = RESOLUTION,
        seed: int = 0,
    ):
        self.engine, self.method, self.tokens = engine, method, tokens
        self.resolution, self.seed = resolution, seed
        self.report_: Report | None = None

    def fit(
        self, photos: Iterable[ImageSource | Photo], labels: Sequence[str], progress: Progress | None = None
    ) -> Self:
        """Learn classes from photos and return self.

        Args:
            photos: Paths, bytes, PIL images, (H, W, 3) uint8 arrays or Photos.
            labels: One for each photo.
            progress: Called as progress(done, total, message).

        Raises:
            ValueError: With fewer than two classes, and for photos that cannot be read.
        """
        return self.fit_tokens(np.stack(list(self.tokens_of(map(as_photo, photos)))), labels, progress)

    def fit_tokens(self, pairs: np.ndarray, labels: Sequence[str], progress: Progress | None = None) -> Self:
        """Learn classes from tokens that are there already, and return self.

        Args:
            pairs: (N, 2, D) class token and mean of the patches of each photo.
            labels: (N,) texts.
            progress: Called as progress(done, total, message).

        Raises:
            ValueError: For shapes that do not fit, unknown settings, and fewer than two classes.
        """
        pairs, names = np.asarray(pairs, np.float32), np.asarray([str(label) for label in labels])
        self._check(pairs, names)
        self.classes_, codes = np.unique(names, return_inverse=True)
        self.report_ = measure(pairs, names, self.method, self.tokens, self.seed, progress)
        self.plan_, self.temperature_ = self.report_.plan, self.report_.temperature
        self.head_: Head = fit(self.plan_, pairs, codes, len(self.classes_))
        self._learn_distances(pairs)
        self.card_ = self._describe(codes)
        return self

    def predict(self, photos: Iterable[ImageSource | Photo]) -> list[Prediction]:
        """Return the classes of photos.

        Raises:
            ValueError: Before `fit`, for another backbone's engine, and for photos that cannot be read.
        """
        pairs = list(self.tokens_of(map(as_photo, photos)))
        return self.predict_tokens(np.stack(pairs)) if pairs else []

    def predict_tokens(self, pairs: np.ndarray) -> list[Prediction]:
        """Return the classes of photos by their tokens (N, 2, D)."""
        self._check_fitted()
        pairs = np.asarray(pairs, np.float32)
        logs = self.head_.log_probabilities(select(pairs, self.plan_.tokens))
        shares = np.exp(log_softmax(logs / self.temperature_))
        distances = far_from_all(pairs[:, 0] - self.centre_, self.gallery_)
        best = shares.argmax(axis=1)
        return [
            Prediction(str(self.classes_[b]), float(row[b]), row, float(d), bool(d > self.bound_))
            for b, row, d in zip(best, shares, distances, strict=True)
        ]

    def tokens_of(self, photos: Iterable[Photo]) -> Iterator[np.ndarray]:
        """Yield class token and mean of the patches, (2, D) float32, of each photo, in order."""
        if self.engine is None:
            raise ValueError("a classifier needs an engine to look at photos; give PhotoClassifier an engine")
        if hasattr(self, "card_"):
            self._check_engine()
        side = input_side(self.resolution, self.engine.backbone.patch_size)
        small = (squash(photo.rgb, side, photo.name) for photo in photos)
        for features in self.engine.features_batch(small, resolution=side):
            if isinstance(features, Exception):
                raise features
            yield np.stack([features.cls, features.patches.mean(axis=(0, 1))])

    def save(self, path: str | Path) -> Path:
        """Write the classifier into a safetensors file, with its card; returns the path.

        Raises:
            ValueError: Before `fit`.
            OSError: When it cannot be written.
        """
        from safetensors.numpy import save_file

        from ...io.files import tensors_written, whole_file

        self._check_fitted()
        path = Path(path)
        with whole_file(path, ".safetensors") as part, tensors_written(path):
            save_file(self._tensors(), part, metadata={"card": json.dumps(self.card_)})
        return path

    @classmethod
    def load(cls, path: str | Path, engine: Engine | None = None) -> PhotoClassifier:
        """Return a classifier that `save` wrote.

        Args:
            path: Of the file.
            engine: For photos; tokens need none.

        Raises:
            ValueError: For damaged files and any others, and for another backbone's engine.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES // 1_000_000} MB")
            with safe_open(path, "numpy") as file:
                card = json.loads((file.metadata() or {})["card"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            found = cls._from(card, tensors)
        except FileNotFoundError as error:
            raise ValueError(f"{path} does not exist; `dinodemo classify fit` makes a classifier") from error
        except (SafetensorError, *DAMAGE, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path.name} is no classifier of dinodemo, or it is damaged ({error}); fit it again"
            ) from error
        if engine is not None:
            found.engine = engine
            found._check_engine()
        return found

    @classmethod
    def _from(cls, card: dict[str, Any], tensors: dict[str, np.ndarray]) -> PhotoClassifier:
        check_card(card)
        found = cls(None, card["plan"]["method"], card["plan"]["tokens"], int(card["resolution"]), int(card["seed"]))
        found.card_, found.plan_ = card, Plan(**card["plan"])
        found.classes_ = np.array(card["classes"])
        found.centre_, found.gallery_ = tensors["centre"], tensors["gallery"].astype(np.float32)
        found.bound_, found.temperature_ = float(card["unknown_beyond"]), float(card["temperature"])
        width = int(card["width"]) * (2 if found.plan_.tokens == "both" else 1)
        if found.plan_.method == "knn":
            rows = tensors["rows"].astype(np.float32)
            head: Head = NeighbourHead(tensors["mean"], tensors["matrix"], rows, tensors["codes"], len(found.classes_))
            shapes = [tensors["mean"].shape == (width,), rows.shape == (len(tensors["codes"]), width)]
            shapes += [
                tensors["matrix"].shape == (width, width),
                codes_are_sound(tensors["codes"], len(found.classes_)),
            ]
        else:
            head = LinearHead(tensors["weight"], tensors["bias"])
            shapes = [head.weight.shape == (len(found.classes_), width), head.bias.shape == found.classes_.shape]
        shapes += [found.centre_.shape == (card["width"],), found.gallery_.shape[1:] == (card["width"],)]
        if not all(shapes) or not all(np.isfinite(t).all() for t in tensors.values()):
            raise ValueError("its numbers do not fit its card")
        found.head_ = head
        return found

    def _tensors(self) -> dict[str, np.ndarray]:
        shared = {"centre": self.centre_, "gallery": self.gallery_.astype(np.float16)}
        head = self.head_
        if isinstance(head, NeighbourHead):
            rows = head.gallery.astype(np.float16)
            mine = {"mean": head.mean, "matrix": head.matrix, "rows": rows, "codes": head.codes}
        else:
            assert isinstance(head, LinearHead)
            mine = {"weight": head.weight, "bias": head.bias}
        return {name: np.ascontiguousarray(value) for name, value in {**shared, **mine}.items()}

    def _learn_distances(self, pairs: np.ndarray) -> None:
        """Keep photos to compare with, and how far they lie from each other."""
        cls = pairs[:, 0]
        self.centre_ = cls.mean(axis=0)
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.permutation(len(cls))[:GALLERY])
        self.gallery_ = unit(cls[chosen] - self.centre_).astype(np.float16).astype(np.float32)  # as it is saved
        asked = self.gallery_[rng.permutation(len(chosen))[:2000]]
        cosines = np.sort(asked @ self.gallery_.T, axis=1)
        nearest = 1 - cosines[:, -2] if len(chosen) > 1 else np.ones(1, np.float32)  # the last is the photo itself
        self.bound_ = float(np.quantile(nearest, UNLIKE))

    def _describe(self, codes: np.ndarray) -> dict[str, Any]:
        assert self.report_ is not None
        engine, report = self.engine, self.report_
        counts = np.bincount(codes, minlength=len(self.classes_))
        return {
            "format": FORMAT,
            "backbone": engine.backbone.name if engine else "",
            "identity": engine.identity.to_json() if engine else "",
            "width": int(self.centre_.size),
            "resolution": int(self.resolution),
            "classes": self.classes_.tolist(),
            "photos": counts.tolist(),
            "plan": {"method": self.plan_.method, "tokens": self.plan_.tokens},
            "temperature": self.temperature_,
            "seed": int(self.seed),
            "accuracy": report.evaluation.accuracy if report.evaluation else None,
            "balanced_accuracy": report.evaluation.balanced_accuracy if report.evaluation else None,
            "interval": list(report.interval),
            "scenes": report.scenes,
            "curve": [list(point) for point in report.curve],
            "compared": report.scores,
            "unknown_beyond": self.bound_,
            "summary": report.sentence(),
        }

    def _check(self, pairs: np.ndarray, names: np.ndarray) -> None:
        if self.method not in ("auto", *METHODS):
            raise ValueError(f"method must be one of auto, {', '.join(METHODS)}, got {self.method!r}")
        if self.tokens not in ("auto", *TOKENS):
            raise ValueError(f"tokens must be one of auto, {', '.join(TOKENS)}, got {self.tokens!r}")
        if pairs.ndim != 3 or pairs.shape[1] != 2 or names.shape != pairs.shape[:1]:
            raise ValueError(f"expected tokens (N, 2, D) with N labels, got {pairs.shape} and {len(names)} labels")
        if not np.isfinite(pairs).all():
            raise ValueError("the tokens hold values that are not finite; compute them again")
        found = np.unique(names)
        if len(found) < 2:
            raise ValueError(f"a classifier needs two classes or more, got {len(found)}: {', '.join(found)}")

    def _check_fitted(self) -> None:
        if not hasattr(self, "head_"):
            raise ValueError("nothing is fitted yet; call fit or load first")

    def _check_engine(self) -> None:
        """Raise ValueError when the engine runs another backbone than the classifier was fitted with."""
        assert self.engine is not None
        made = self.card_["backbone"]
        row = self.engine.backbone
        if made and (row.name != made or row.width != self.card_["width"]):
            raise ValueError(
                f"this classifier was fitted with {made} (width {self.card_['width']}), the engine runs {row.name} "
                f"(width {row.width}); use Engine({made!r}), or fit again with {row.name}"
            )
        stored = Identity.from_json(self.card_["identity"])
        self.doubt_ = check(stored, self.engine.identity, "this classifier", "fit it again") if made else ""
