"""DepthProbe: fit on photos with depth maps, predict on any photo, save with a card."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...io.images import ImageSource, Photo, load_photo
from ..estimator import Estimator
from .card import check_engine, check_fitted, check_options, damage_refused, describe, make_note, read_file, write_file
from .dataset import RELATIVE_RANGE, check_aspect, check_depths, choose_held_out, depth_range, without_scale
from .head import KINDS, LinearDepthHead, layer_indices
from .metrics import align, figures, mean_figures
from .official import read_official
from .tokens import flipped, read_tokens
from .training import Sample, Settings, feature_type, to_sample, train
from .upsample import guided_to_pixels, to_pixels

if TYPE_CHECKING:
    from ...engine.engine import Engine

Progress = Callable[[int, int, str], None]  # done, total, message
Pairs = Iterable[tuple[ImageSource | Photo, np.ndarray]]


class DepthProbe(Estimator):
    """Train a linear depth head on frozen tokens (Oquab et al. 2023, arXiv:2304.07193, 7.4).

    kind: "lin4" reads four layers, "lin1" the last one, each with its CLS. epochs: at most so many passes. resolution:
    of the features. bins: of depth. relative: the depth maps have no scale, and so have the predictions: they lie in
    about 0.1 to 1, larger is farther. min_depth, max_depth: of the bins, in metres; None takes them from the data.
    flips: also learn every picture mirrored. mean: also join each layer's mean patch; without it the head is exactly
    the published one. seed: with it a training on a CPU repeats exactly.

    Learned: card_ (a JSON object: backbone, data, range, figures, warning), note_ (it in a sentence), figures_ on the
    held-out pairs or None, held_out_ (their indices), curve_ (a dict an epoch), backbone_, unit_ ("metres" or
    "relative").
    """

    def __init__(
        self,
        kind: str = "lin4",
        epochs: int = 20,
        resolution: int = 518,
        bins: int = 256,
        relative: bool = False,
        min_depth: float | None = None,
        max_depth: float | None = None,
        flips: bool = False,
        mean: bool = True,
        seed: int = 0,
    ):
        self.kind, self.epochs, self.resolution, self.bins, self.relative = kind, epochs, resolution, bins, relative
        self.min_depth, self.max_depth, self.flips, self.mean, self.seed = min_depth, max_depth, flips, mean, seed

    def fit(
        self,
        engine: "Engine",
        pairs: Pairs,
        val: Pairs | None = None,
        groups: Sequence[str] | None = None,
        progress: Progress | None = None,
        stop_early: bool = True,
        data: str = "",
        licence: str = "",
        warning: str = "",
    ) -> "DepthProbe":
        """Train on photos and depth maps (H, W) in metres, 0 or nan where there is no reading.

        A depth map may have another size than its photo, of the same aspect. val: pairs to measure on; None holds out
        a fifth: whole scenes where `groups` names a scene for each pair, else the end of the pairs, taken as one walk
        in time, with a gap before it. stop_early: the held-out pairs also choose the epoch, so that the figures
        flatter a little; without it they only measure. data, licence, warning: words for the card. progress(done,
        total, message) is called after every picture and epoch; an exception raised in it cancels.
        Raises ValueError for depth maps that cannot be used.
        """
        check_options(self)
        chosen, held, self.held_out_ = _split(pairs, val, groups)
        depths, held_depths = ([depth for _, depth in part] for part in (chosen, held))
        limits = RELATIVE_RANGE if self.relative else depth_range(depths, self.min_depth, self.max_depth)
        layers = layer_indices(engine.backbone.depth, KINDS[self.kind])
        pictures = len(chosen) * (1 + self.flips) + len(held)
        head = LinearDepthHead(engine.backbone.width, len(layers), self.bins, *limits, mean=self.mean)
        reader = _Reader(self, engine, layers, head, progress, pictures)
        self.curve_: list[dict] = []
        with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
            training, held_out = reader.read(chosen, self.flips), reader.read(held, False)
            settings = Settings(self.epochs, self.relative, stop_early, self.seed)
            trained = train(
                head.to(engine.device),
                training,
                list(zip(held_out, held_depths, strict=True)),
                settings,
                self._watch(reader),
            )
        self._head = head.eval().requires_grad_(False)
        words = {"data": data, "licence": licence, "warning": warning}
        self._set_card(describe(self, engine, layers, limits, (len(chosen), len(held)), trained, words))
        reader.done = reader.total - 1  # also after an early stop
        reader.tell(self.note_)
        return self

    def predict(
        self,
        engine: "Engine",
        image: ImageSource | Photo,
        flip: bool = False,
        guided: bool = True,
        resolution: int | None = None,
    ) -> np.ndarray:
        """Return the depth of every pixel of a photo of any size and aspect: (H, W) float32 metres (see `unit_`).

        flip: also predict the mirrored photo and take the mean. guided: let the photo's edges lead the way from the
        head's grid to pixels; without it they are bilinear. resolution: of the features; None is the training's.
        Raises ValueError when the engine runs another backbone than the probe was trained on, or no photo is read.
        """
        check_engine(self, engine)
        photo = image if isinstance(image, Photo) else load_photo(image)
        depth = self._coarse(engine, photo, resolution)
        if flip:
            depth = (depth + self._coarse(engine, flipped(photo), resolution)[:, ::-1]) / 2
        return guided_to_pixels(depth, photo.rgb) if guided else to_pixels(depth, photo.size)

    def evaluate(
        self, engine: "Engine", pairs: Pairs, flip: bool = False, aligned: bool | None = None, guided: bool = True
    ) -> dict[str, float]:
        """Return the mean over pairs of the figures of `metrics.figures`, at the size of each depth map.

        aligned: first fit scale and shift of the inverse depth to the truth; None does so for relative probes only.
        Raises ValueError for no pairs, and for depth maps that cannot be used.
        """
        pairs = [(image, depth) for image, depth in pairs]
        depths = check_depths([depth for _, depth in pairs])
        each = []
        for (image, _), truth in zip(pairs, depths, strict=True):
            depth = to_pixels(self.predict(engine, image, flip, guided), truth.shape)
            each.append(
                figures(align(depth, truth) if (self.relative if aligned is None else aligned) else depth, truth)
            )
        return mean_figures(each)

    def save(self, path: str | Path) -> None:
        """Write the probe as safetensors with its card as metadata (exactly to `path`)."""
        check_fitted(self)
        write_file(Path(path), self._head, self.card_)

    @classmethod
    def load(cls, path: str | Path) -> "DepthProbe":
        """Read a probe that `save` wrote; raises ValueError for damaged files and any others."""
        with damage_refused(Path(path)):
            return cls._from(*read_file(Path(path)))

    @classmethod
    def from_meta(cls, path: str | Path, dataset: str | None = None, backbone: str | None = None) -> "DepthProbe":
        """Read a published head, `dinov2_vits14_nyu_linear4_head.pth` and its like.

        dataset: "nyu" (0.001 to 10 m) or "kitti" (0.001 to 80 m); None takes it from the file's name. backbone: the
        name of the one that it was trained on; None takes it from the file's name, else from the tensors' width.
        Raises ValueError for files that hold no such head or do not say what they were trained on.
        """
        return cls._from(*read_official(Path(path), dataset, backbone))

    @classmethod
    def _from(cls, card: dict, head: LinearDepthHead) -> "DepthProbe":
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
        )
        check_options(probe)
        probe._head = head.eval().requires_grad_(False)
        probe.held_out_, probe.curve_ = [], []
        probe._set_card(card)
        return probe

    def _watch(self, reader: "_Reader") -> Callable[[dict], None]:
        """Return what is called after every epoch: it grows the curve and tells of it."""

        def watch(row: dict) -> None:
            self.curve_.append(row)
            figures = f", held-out delta1 {row['delta1']:.3f}, RMSE {row['rmse']:.3f}" if "rmse" in row else ""
            reader.tell(f"epoch {row['epoch']} of {self.epochs}, loss {row['loss']:.3f}{figures}")

        return watch

    @torch.inference_mode()
    def _coarse(self, engine: "Engine", photo: Photo, resolution: int | None) -> np.ndarray:
        """Return depth on the head's grid (4 h, 4 w)."""
        patches, cls = read_tokens(
            engine, photo, tuple(self.card_["layers"]), resolution or self.resolution, self.card_["normed"]
        )
        head = self._head.to(engine.device)
        depth = head(*(torch.tensor(tokens, device=engine.device) for tokens in (patches, cls)))
        return depth.float().cpu().numpy()

    def _set_card(self, card: dict) -> None:
        """Derive all learned attributes from the card, so that a loaded probe has the same ones as a fitted one."""
        self.card_, self.backbone_, self.figures_ = card, card["backbone"], card["figures"]
        self.unit_ = "relative" if card["relative"] else "metres"
        self.note_ = make_note(card)


def _split(pairs: Pairs, val: Pairs | None, groups: Sequence[str] | None) -> tuple[list, list, list[int]]:
    """Check the pairs; return those to train on, those held out, and the places of the latter."""
    pairs, val = [(image, depth) for image, depth in pairs], [(image, depth) for image, depth in val or ()]
    if not pairs:
        raise ValueError("no pairs to train on; give at least one photo with its depth map")
    depths = check_depths([depth for _, depth in pairs])
    pairs = [(image, depth) for (image, _), depth in zip(pairs, depths, strict=True)]
    if val:
        depths = check_depths([depth for _, depth in val], "held-out pair")
        return pairs, [(image, depth) for (image, _), depth in zip(val, depths, strict=True)], list(range(len(val)))
    chosen, held = choose_held_out(len(pairs), groups)
    return [pairs[i] for i in chosen], [pairs[i] for i in held], held


class _Reader:
    """Compute every picture's tokens once, and count what is done."""

    def __init__(self, probe: DepthProbe, engine, layers, head, progress: Progress | None, pictures: int):
        self.probe, self.engine, self.layers, self.head, self.pictures = probe, engine, layers, head, pictures
        self.done, self.total = 0, pictures + probe.epochs
        self._dtype: type | None = None
        self._progress = progress or (lambda done, total, message: None)

    def tell(self, message: str) -> None:
        self.done = min(self.done + 1, self.total)
        self._progress(self.done, self.total, message)

    def read(self, pairs: list[tuple], flips: bool) -> list[Sample]:
        """Return a sample for each pair, and for its mirror image right after it where `flips`."""
        samples = []
        for i, (image, depth) in enumerate(pairs):
            photo = image if isinstance(image, Photo) else load_photo(image)
            check_aspect(photo, depth, i)
            if self.probe.relative:
                depth = without_scale(depth)
            for view, truth in [(photo, depth), (flipped(photo), depth[:, ::-1])][: 2 if flips else 1]:
                patches, cls = read_tokens(self.engine, view, self.layers, self.probe.resolution)
                self._dtype = self._dtype or feature_type(patches, self.pictures)
                samples.append(to_sample(self.head, patches, cls, truth, self._dtype))
                self.tell(f"features of picture {i + 1} of {len(pairs)}")
        return samples
