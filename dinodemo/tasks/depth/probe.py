"""DepthProbe: fit on photos with depth maps, predict on any photo, save with a card."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...io.defaults import RESOLUTION
from ...io.images import ImageSource, Photo, as_photo
from ..estimator import Estimator
from .card import check_engine, check_fitted, check_options, describe, make_note
from .dataset import RELATIVE_RANGE, depth_range, prepare
from .fitting import Pairs, Progress, Reader, apart, direction, split_pairs
from .head import KINDS, LinearDepthHead, layer_indices
from .judgement import DepthEstimate, judge
from .metrics import align, depth_metrics, mean_metrics
from .nearness import Nearness, fit_nearness
from .official import read_official
from .probe_file import damage_refused, read_file, write_file
from .tokens import Tokens, flipped, read_tokens
from .training import Settings, Trained, badness, evaluate, train
from .upsample import guided_to_pixels, to_pixels
from .world import LEAST_PICTURES, World, describe_picture, fit_world

if TYPE_CHECKING:
    from ...engine.engine import Engine


class DepthProbe(Estimator):
    """Train a linear depth head on frozen tokens (Oquab et al. 2023, arXiv:2304.07193, 7.4).

    Args:
        kind: "lin4" reads four layers, "lin1" the last one, each with its class token.
        epochs: at most so many passes.
        resolution: of the features: the network sees about resolution^2 pixels.
        bins: of depth.
        relative: the depth maps have no scale, and so have the predictions: they lie in about 0.1 to 1, larger is
            farther.
        min_depth, max_depth: of the bins, in metres; None takes them from the data.
        flips: also learn every picture mirrored.
        mean: also join each layer's mean patch; without it the head is exactly the published one.
        seed: with it a training on a CPU repeats exactly.
        inverse: larger numbers in the depth maps are nearer: disparity, or 1 / metres. None takes them so where they
            are `relative` and nearly all of them have their bottom farther than their top; the card says it.
        balanced: every scene named by `groups` counts the same, however many pairs it has; better in new places.
        engine: that runs the backbone; None where every call names it.

    Learned: `card_` (a JSON object: backbone, identity, data, range, metrics, warning), `note_` (it in a sentence),
    `metrics_` on the held-out pairs or None, `held_out_` (their indices), `curve_` (a dict an epoch), `backbone_`,
    `unit_` ("metres" or "relative"), `inverse_` (whether larger numbers were
    taken as nearer), `world_` (which pictures are like the training's, or None), `nearness_` (near and far within
    a picture, or None).
    """

    def __init__(
        self,
        kind: str = "lin4",
        epochs: int = 20,
        resolution: int = RESOLUTION,
        bins: int = 256,
        relative: bool = False,
        min_depth: float | None = None,
        max_depth: float | None = None,
        flips: bool = False,
        mean: bool = True,
        seed: int = 0,
        inverse: bool | None = None,
        balanced: bool = False,
        engine: "Engine | None" = None,
    ):
        self.kind, self.epochs, self.resolution, self.bins, self.relative = kind, epochs, resolution, bins, relative
        self.min_depth, self.max_depth, self.flips, self.mean, self.seed = min_depth, max_depth, flips, mean, seed
        self.inverse, self.balanced, self.engine = inverse, balanced, engine

    def fit(
        self,
        engine: "Engine | Pairs | None" = None,
        pairs: Pairs | None = None,
        val: Pairs | None = None,
        groups: Sequence[str] | None = None,
        progress: Progress | None = None,
        stop_early: bool = True,
        data: str = "",
        licence: str = "",
        warning: str = "",
    ) -> "DepthProbe":
        """Train on photos with their depth maps; `fit(pairs)` with the constructor's engine, or `fit(engine, pairs)`.

        Args:
            engine: that runs the backbone; left out, it is the constructor's.
            pairs: (image, depth), depth (H, W) in metres, 0 or nan where there is no reading. It may have another size
                than its photo, of the same aspect. Sky and "nothing there" at the far end are recognised and left out.
            val: pairs to measure on; None holds out a fifth: whole scenes where `groups` names a scene for each pair,
                else the end of the pairs, taken as one walk in time, with a gap before it.
            groups: a scene for each pair.
            progress: progress(done, total, message) is called after every picture and epoch; what it raises cancels.
            stop_early: the held-out pairs also choose the epoch, so that the metrics flatter a little; without it they
                only measure.
            data, licence, warning: words for the card.

        Raises:
            ValueError: for depth maps that cannot be used.
        """
        runner, given = self._resolve(engine, pairs, "pairs")
        check_options(self)
        split = split_pairs(self, given, val, groups)
        self.held_out_ = split.held_out
        self.inverse_ = split.inverse if self.inverse is None else self.inverse
        limits = RELATIVE_RANGE if self.relative else depth_range(split.depths, self.min_depth, self.max_depth)
        layers = layer_indices(runner.backbone.depth, KINDS[self.kind])
        pictures = len(split.chosen) * (1 + self.flips) + len(split.held)
        head = LinearDepthHead(runner.backbone.width, len(layers), self.bins, *limits, mean=self.mean)
        reader = Reader(self, runner, layers, head, progress, pictures)
        self.curve_: list[dict] = []
        with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
            training = reader.read(split.chosen, self.flips, split.weights if self.balanced else None)
            held_out = reader.read(split.held, False)
            settings = Settings(self.epochs, self.relative, stop_early, self.seed)
            measured = list(zip(held_out, [depth for _, depth in split.held], strict=True))
            trained = train(head.to(runner.device), training, measured, settings, self._watch(reader))
        self._head = head.eval().requires_grad_(False)
        few = len(split.chosen) < LEAST_PICTURES  # the head knows them by heart
        self.nearness_ = None if self.relative or few else fit_nearness(training, runner.backbone.width)
        trained = self._weigh_nearness(trained, measured, stop_early)
        self.world_ = fit_world(*reader.descriptors(len(split.chosen)))
        words = {"data": data, "licence": licence, "warning": " ".join(t for t in (warning, *split.remarks) if t)}
        self.set_card(describe(self, runner, layers, limits, (len(split.chosen), len(split.held)), trained, words))
        reader.done = reader.total - 1  # also after an early stop
        reader.step(self.note_)
        return self

    def _weigh_nearness(self, trained: Trained, measured: list, choose: bool) -> Trained:
        """Measure with the map of near and far; where held-out pictures may choose and are worse with it, leave it out.

        "Out" is a share of 0: it goes on ordering pictures that the probe does not know.
        """
        if self.nearness_ is None or not measured:
            return trained
        found = evaluate(self._head, measured, False, self.nearness_)
        if choose and trained.metrics is not None and badness(found, False) > badness(trained.metrics, False):
            self.nearness_ = replace(self.nearness_, share=0.0)
            return trained
        return replace(trained, metrics=found)

    def predict(
        self,
        engine: "Engine | ImageSource | Photo | None" = None,
        image: ImageSource | Photo | None = None,
        flip: bool = False,
        guided: bool = True,
        resolution: int | None = None,
    ) -> np.ndarray:
        """Return the depth of every pixel of a photo of any size and aspect: (H, W) float32 metres (see `unit_`).

        Whether metres can be believed is what `estimate` says.

        Args:
            engine: that runs the backbone; left out, it is the constructor's.
            image: a path, bytes, PIL, (H, W, 3) uint8 or Photo.
            flip: also predict the mirrored photo and take the mean.
            guided: let the photo's edges lead the way from the head's grid to pixels; without it they are bilinear.
            resolution: of the features; None is the training's.

        Raises:
            ValueError: when the engine runs other weights than the probe was trained on, or no photo is read.
        """
        return self.estimate(engine, image, flip, guided, resolution, metres=True).metres

    def estimate(
        self,
        engine: "Engine | ImageSource | Photo | None" = None,
        image: ImageSource | Photo | None = None,
        flip: bool = False,
        guided: bool = True,
        resolution: int | None = None,
        metres: bool = False,
    ) -> DepthEstimate:
        """Return the depth of a photo, in metres only where the photo is like the training pictures.

        Args:
            engine, image, flip, guided, resolution: as in `predict`.
            metres: give metres outside of the probe's world too.

        Raises:
            ValueError: as in `predict`.
        """
        runner, given = self._resolve(engine, image, "image")
        check_engine(self, runner)
        photo = as_photo(given)
        views = [self._tokens(runner, view, resolution) for view in (photo, *([flipped(photo)] if flip else ()))]
        depth = self._to_pixels(photo, [self._coarse(runner, tokens) for tokens in views], guided)
        distance, order = self._distance_to_training(views[0]), None
        if self.nearness_ is not None and distance is not None and distance > 1:
            order = self._to_pixels(photo, [self.nearness_.depth(patches) for patches, _ in views], guided)
        return judge(depth, self.unit_, distance, metres, order)

    @staticmethod
    def _to_pixels(photo: Photo, maps: list[np.ndarray], guided: bool) -> np.ndarray:
        """Bring a map on the head's grid, and that of the mirrored photo where there is one, to the photo's size."""
        coarse = maps[0] if len(maps) == 1 else (maps[0] + maps[1][:, ::-1]) / 2
        return guided_to_pixels(coarse, photo.rgb) if guided else to_pixels(coarse, photo.size)

    def _distance_to_training(self, tokens: Tokens) -> float | None:
        """Return how far a picture lies outside of the training's, as a multiple of the largest distance inside."""
        if self.world_ is None:
            return None
        descriptor = describe_picture(*tokens, len(self.card_["layers"]))
        return self.world_.distance(descriptor) / self.world_.threshold

    def evaluate(
        self,
        engine: "Engine | Pairs | None" = None,
        pairs: Pairs | None = None,
        flip: bool = False,
        aligned: bool | None = None,
        guided: bool = True,
    ) -> dict[str, float]:
        """Return the mean over pairs of `metrics.depth_metrics`, at the size of each depth map.

        Args:
            engine, pairs: as in `fit`.
            flip, guided: as in `predict`.
            aligned: first fit scale and shift of the inverse depth to the truth; None does so for relative probes only.

        Raises:
            ValueError: for no pairs, and for depth maps that cannot be used.
        """
        runner, given = self._resolve(engine, pairs, "pairs")
        check_fitted(self)
        listed = list(given)
        images, depths = apart(listed)
        truths = prepare(depths, self.relative, direction(listed, self.inverse_)).depths
        fitting = self.relative if aligned is None else aligned
        each = []
        for image, truth in zip(images, truths, strict=True):
            depth = to_pixels(self.predict(runner, image, flip, guided), truth.shape)
            each.append(depth_metrics(align(depth, truth) if fitting else depth, truth))
        return mean_metrics(each)

    def _resolve(self, engine: Any, given: Any, what: str) -> tuple["Engine", Any]:
        """Return engine and what comes after it, however many of the two were given."""
        if given is None and engine is not None and not hasattr(engine, "backbone"):
            engine, given = None, engine
        runner = self.engine if engine is None else engine
        if runner is None:
            raise ValueError(f"there is no engine: DepthProbe(engine=...), or give it before the {what}")
        if given is None:
            raise ValueError(f"there is no {what} to work on; give it after the engine")
        return runner, given

    def save(self, path: str | Path) -> None:
        """Write the probe as safetensors with its card as metadata (exactly to `path`)."""
        check_fitted(self)
        write_file(Path(path), self._head, self.card_, self.world_, self.nearness_)

    @classmethod
    def load(cls, path: str | Path, engine: "Engine | None" = None) -> "DepthProbe":
        """Read a probe that `save` wrote, this version or version 0.1; raises ValueError for damaged and other files.

        Args:
            path: of the file.
            engine: for `predict` without one.
        """
        with damage_refused(Path(path)):
            probe = cls._from(*read_file(Path(path)))
        probe.engine = engine
        return probe

    @classmethod
    def from_meta(cls, path: str | Path, dataset: str | None = None, backbone: str | None = None) -> "DepthProbe":
        """Load a published head, `dinov2_vits14_nyu_linear4_head.pth` and its like.

        Args:
            path: Of the file.
            dataset: "nyu" (0.001 to 10 m) or "kitti" (0.001 to 80 m); None takes it from the file's name.
            backbone: Name of the one it was trained on; None takes it from the file's name, else the tensors' width.

        Raises:
            ValueError: The file holds no such head or does not say what it was trained on.
        """
        return cls._from(*read_official(Path(path), dataset, backbone))

    @classmethod
    def _from(
        cls, card: dict, head: LinearDepthHead, world: World | None = None, nearness: Nearness | None = None
    ) -> "DepthProbe":
        low, high = (None, None) if card["relative"] else card["range"]
        probe = cls(
            card["kind"],
            card["epochs"],
            card["resolution"],
            card["bins"],
            card["relative"],
            low,
            high,
            card["flips"],
            card["mean"],
            card["seed"],
            card["inverse"],
            card["balanced"],
        )
        check_options(probe)
        probe._head = head.eval().requires_grad_(False)
        probe.held_out_, probe.curve_, probe.world_, probe.nearness_ = [], [], world, nearness
        probe.set_card(card)
        return probe

    def _watch(self, reader: "Reader") -> Callable[[dict], None]:
        """Return what is called after every epoch: it grows the curve and reports it."""

        def watch(row: dict) -> None:
            self.curve_.append(row)
            held_out = f", held-out delta1 {row['delta1']:.3f}, RMSE {row['rmse']:.3f}" if "rmse" in row else ""
            reader.step(f"epoch {row['epoch']} of {self.epochs}, loss {row['loss']:.3f}{held_out}")

        return watch

    @property
    def head(self) -> LinearDepthHead:
        """Return the module that turns tokens into depth."""
        check_fitted(self)
        return self._head

    def _tokens(self, engine: "Engine", photo: Photo, resolution: int | None) -> Tokens:
        layers, side = tuple(self.card_["layers"]), resolution or self.resolution
        return read_tokens(engine, photo, layers, side, self.card_["normed"])

    @torch.inference_mode()
    def _coarse(self, engine: "Engine", tokens: Tokens) -> np.ndarray:
        """Return depth on the head's grid (4 h, 4 w)."""
        head = self._head.to(engine.device)
        depth = head(*(torch.tensor(part, device=engine.device) for part in tokens)).float().cpu().numpy()
        return depth if self.nearness_ is None else self.nearness_.refine(depth, tokens[0])

    def set_card(self, card: dict) -> None:
        """Derive all learned attributes from the card, so that a loaded probe has the same ones as a fitted one."""
        self.card_, self.backbone_, self.metrics_ = card, card["backbone"], card["metrics"]
        self.unit_ = "relative" if card["relative"] else "metres"
        self.inverse_ = card["inverse"]
        self.note_ = make_note(card)
