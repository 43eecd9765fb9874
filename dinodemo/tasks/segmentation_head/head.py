"""SegmentationHead: fit on photos with index masks, predict on any photo, save with a card."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...backbones.identity import Identity, check
from ...io.defaults import RESOLUTION
from ...io.files import write_file
from ...io.images import ImageSource, Photo, as_photo, load_photo
from ..estimator import Estimator
from .dataset import LEAST_PHOTOS, MAX_CLASSES, check_masks, check_shares, choose_held_out, size_mismatch
from .training import (
    IGNORE,
    KINDS,
    HeadNetwork,
    Sample,
    class_iou,
    confusion,
    grid_confusion,
    label_shares,
    mean_iou,
    train,
    winners,
)

if TYPE_CHECKING:
    from ...engine.engine import Engine

FORMAT = "dinodemo segmentation head 1"
MAX_FILE_BYTES = 64_000_000  # a real head has less than 2 MB
FLOAT32_BYTES = 256 << 20  # of training features; more than that are kept as float16
MEASURED_PIXELS = 2_000_000  # larger masks are measured on every second, third, ... pixel
Progress = Callable[[int, int, str], None]  # done, total, message


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """Represent one photo's prediction at its full size."""

    classes: np.ndarray  # (H, W) uint8, an index into `names`; 0 = background
    probability: np.ndarray  # (H, W) float32 in (0, 1], that of the winning class
    names: tuple[str, ...]


class SegmentationHead(Estimator):
    """Train a head on frozen patch tokens: linear (Oquab et al. 2023, arXiv:2304.07193, 7.4) or a light decoder.

    Learned: classes_ (names, background first), miou_ and iou_ (n,) on photos held out of the training, confusion_
    (n, n) pixel counts by (true, predicted) and confusion_normalised_ (rows sum to 1; nan for labels not seen).
    These four are None with fewer than 4 photos. The held-out photos also choose the epoch, so the metrics flatter
    a little. training_miou_ is measured on the training photos' patches. note_ says all that in words; card_ in JSON.

    Args:
        kind: "linear", or "conv": 1x1, then two transposed convolutions to a grid four times as fine.
        epochs: At most so many passes.
        resolution: Of the features, px.
        seed: With it a training on a CPU repeats exactly.
        layers: Whose tokens are joined, counted from 0 or, below 0, from the last.
    """

    def __init__(
        self,
        kind: str = "linear",
        epochs: int = 40,
        resolution: int = RESOLUTION,
        seed: int = 0,
        layers: Sequence[int] = (-1,),
    ):
        self.kind, self.epochs, self.resolution, self.seed, self.layers = kind, epochs, resolution, seed, layers

    def fit(
        self,
        engine: "Engine",
        pairs: Iterable[tuple[ImageSource | Photo, np.ndarray]],
        classes: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> "SegmentationHead":
        """Train on photos and masks and return self.

        Args:
            engine: Runs the backbone.
            pairs: Photo and index mask (H, W), integers at the upright photo's size: 0 background, 255 ignored.
            classes: Names of the labels 1, 2, ...; None numbers them.
            progress: progress(done, total, message) is called after every photo and epoch; what it raises cancels.

        Raises:
            ValueError: A mask does not fit.
        """
        _check_options(self)
        pairs = list(pairs)
        masks, names = check_masks([mask for _, mask in pairs], classes)
        total = len(pairs) + self.epochs
        report = progress or (lambda done, total, message: None)
        with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
            samples, digests = self._samples(engine, pairs, masks, len(names), lambda i, m: report(i, total, m))
            held = choose_held_out(digests, [set(np.unique(mask).tolist()) - {IGNORE} for mask in masks])
            training = [sample for i, sample in enumerate(samples) if i not in held]
            check_shares(training, names, masks)
            generator = torch.Generator().manual_seed(self.seed)
            network = HeadNetwork(self.kind, samples[0].patches.shape[-1], len(names))
            network.initialise(generator)
            network.standardise(training)
            network.to(engine.device)
            trained = train(
                network,
                training,
                [samples[i] for i in held],
                self.kind,
                self.epochs,
                generator,
                lambda epoch, message: report(len(pairs) + epoch, total, message),
            )
            counts = sum(_confusion(network, samples[i], masks[i], len(names)) for i in held) if held else None
            training_miou = mean_iou(grid_confusion(network, training))
        self._network = network.eval().requires_grad_(False)
        self._describe(engine, names, len(pairs), len(held), trained, counts, training_miou)
        report(total, total, self.note_)
        return self

    def predict(self, engine: "Engine", photo: ImageSource | Photo) -> SegmentationResult:
        """Return the label of every pixel of a photo of any size and aspect.

        Args:
            engine: Runs the backbone that the head was trained on.
            photo: As for `Engine.features`.

        Raises:
            ValueError: The engine runs another backbone, or the photo cannot be read.
        """
        self.check_engine(engine)
        photo = as_photo(photo)
        self._network.to(engine.device)
        with torch.inference_mode():
            patches = torch.tensor(_patches(engine, photo, self.resolution, self.layers), device=engine.device)
            classes, probability = winners(self._network(patches), photo.size)
        return SegmentationResult(classes, probability, self.classes_)

    def save(self, path: str | Path) -> None:
        """Write the head as safetensors with its card as metadata (exactly to `path`)."""
        from safetensors.torch import save

        self._check_fitted()
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        write_file(Path(path), save(tensors, {"card": json.dumps(self.card_, allow_nan=False)}))

    @classmethod
    def load(cls, path: str | Path) -> "SegmentationHead":
        """Return a head that `save` wrote; raises ValueError for damaged files and any others."""
        from safetensors import SafetensorError

        try:
            card, tensors = _read(Path(path))
            head = cls(card["kind"], card["epochs"], card["resolution"], card["seed"], tuple(card["layers"]))
            _check_options(head)
            head._network = _build(card, tensors)
            head._set_card(card)
        except (
            OSError,
            SafetensorError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            reason = f"{error} is missing in its card" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{Path(path).name} is not a segmentation head saved by this app, or is damaged ({reason}); "
                "save or copy it again"
            ) from error
        return head

    def _samples(self, engine, pairs, masks, labels: int, report) -> tuple[list[Sample], list[str]]:
        """Compute every photo's features once; returns the samples and the photos' digests."""
        samples: list[Sample] = []
        digests: list[str] = []
        dtype: type[np.floating] = np.float32
        for i, ((source, _), mask) in enumerate(zip(pairs, masks, strict=True)):
            photo = source if isinstance(source, Photo) else load_photo(source)
            if mask.shape != photo.size:
                raise ValueError(size_mismatch(i, photo, mask))
            patches = _patches(engine, photo, self.resolution, self.layers)
            if i == 0 and patches.nbytes * len(pairs) > FLOAT32_BYTES:
                dtype = np.float16
            fine = KINDS[self.kind]
            grid = patches.shape[0] * fine, patches.shape[1] * fine
            # copied: the engine's arrays are read-only and shared with its cache
            samples.append(Sample(torch.from_numpy(patches.astype(dtype)), label_shares(mask, grid, labels)))
            digests.append(photo.digest)
            report(i + 1, f"features of photo {i + 1} of {len(pairs)}")
        return samples, digests

    def _describe(self, engine, names, photos, held, trained, counts, training_miou) -> None:
        iou = None if counts is None else class_iou(counts)
        card = {
            "format": FORMAT,
            "backbone": engine.backbone.name,
            "width": engine.backbone.width,
            "identity": engine.identity.to_json(),
            "layers": list(self.layers),
            "resolution": self.resolution,
            "kind": self.kind,
            "classes": list(names),
            "seed": self.seed,
            "epochs": self.epochs,
            "epochs_run": trained.epochs,
            "epoch_kept": trained.kept,
            "pairs": photos,
            "held_out_pairs": held,
            "training_miou": training_miou,
            "miou": None if counts is None else mean_iou(counts),
            "iou": None if iou is None else [None if math.isnan(value) else float(value) for value in iou],
            "confusion": None if counts is None else counts.tolist(),
        }
        self._set_card(card)

    def _set_card(self, card: dict) -> None:
        """Derive all learned attributes from the card, so that a loaded head has the same ones as a fitted one."""
        self.card_ = card
        self.backbone_, self.classes_ = card["backbone"], tuple(card["classes"])
        self.identity_ = Identity.from_json(card.get("identity"))  # None for heads of version 0.1
        self.training_miou_, self.miou_, counts = float(card["training_miou"]), card["miou"], card["confusion"]
        self.iou_ = self.confusion_ = self.confusion_normalised_ = None
        n = len(self.classes_)
        if counts is not None:
            self.confusion_ = np.array(counts, dtype=np.int64)
            self.iou_ = np.array(card["iou"], dtype=np.float64)  # None becomes nan
            if self.confusion_.shape != (n, n) or self.iou_.shape != (n,):
                raise ValueError("its metrics do not fit its classes")
            seen = self.confusion_.sum(1, keepdims=True)
            self.confusion_normalised_ = np.where(seen > 0, self.confusion_ / np.maximum(seen, 1), np.nan)
        self.note_ = _note(card)

    def _check_fitted(self) -> None:
        if not hasattr(self, "card_"):
            raise ValueError("nothing is fitted yet; call fit or load first")

    def check_engine(self, engine: "Engine") -> str:
        """Check that an engine runs the network that the head was trained on.

        Returns:
            A warning where that cannot be known (heads of version 0.1), empty where the weights are the same.

        Raises:
            ValueError: when the backbone or its weights are others.
        """
        self._check_fitted()
        row, width = engine.backbone, self.card_["width"]
        if row.name != self.backbone_ or row.width != width:
            raise ValueError(
                f"this head was trained on {self.backbone_} (width {width}), the engine runs {row.name} (width "
                f"{row.width}); open {self.backbone_} or train the head again on {row.name}"
            )
        return check(self.identity_, engine.identity, "this head", "train it again")


def _patches(engine: "Engine", photo: Photo, resolution: int, layers: Sequence[int]) -> np.ndarray:
    """Return the tokens of the chosen layers side by side: (h, w, D * layers) float32."""
    if tuple(layers) == (-1,):
        return engine.features(photo, resolution).patches  # the cache's entry for every other task
    return np.concatenate([patches for _, patches in engine.layers(photo, tuple(layers), resolution)], axis=-1)


def _check_options(head: SegmentationHead) -> None:
    if head.kind not in KINDS:
        raise ValueError(f'kind must be "linear" or "conv", got {head.kind!r}')
    for name, low, high in (("epochs", 1, 10_000), ("seed", 0, 2**63 - 1), ("resolution", 1, 16_384)):
        value = getattr(head, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    if not 1 <= len(head.layers) <= 64 or not all(isinstance(layer, int) for layer in head.layers):
        raise ValueError(f"layers must be one to 64 whole numbers, got {head.layers!r}")


def _confusion(network: HeadNetwork, sample: Sample, mask: np.ndarray, labels: int) -> np.ndarray:
    step = math.ceil(math.sqrt(mask.size / MEASURED_PIXELS))
    truth = mask[::step, ::step]
    with torch.no_grad():
        predicted, _ = winners(network(sample.patches.to(network.mean.device)), truth.shape)
    return confusion(truth, predicted, labels)


def _note(card: dict) -> str:
    if card["miou"] is None:
        return (
            f"No held-out figure: {card['pairs']} pairs are too few to keep one back, or none can be missed "
            f"(from {LEAST_PHOTOS} photos on). On its own training patches the mIoU is {card['training_miou']:.3f}."
        )
    return (
        f"Held-out mIoU {card['miou']:.3f} on {card['held_out_pairs']} of {card['pairs']} pairs, which the training "
        "did not see but which chose its epoch."
    )


def _read(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    from safetensors import safe_open

    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with safe_open(path, "pt") as file:
        card = json.loads((file.metadata() or {})["card"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f'its card does not say "{FORMAT}"')
    return card, tensors


def _build(card: dict, tensors: dict[str, torch.Tensor]) -> HeadNetwork:
    width, names = card["width"], card["classes"]
    sound = isinstance(width, int) and 1 <= width <= 65_536 and isinstance(card["backbone"], str)
    if not sound or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its backbone, width or classes are damaged")
    if not 2 <= len(names) <= MAX_CLASSES + 1:
        raise ValueError(f"it names {len(names)} labels, expected 2 to {MAX_CLASSES + 1}")
    network = HeadNetwork(card["kind"], width * len(card["layers"]), len(names), device="meta")
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise ValueError(f"expected tensors {expected}, got {found}")
    if not all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError("its numbers must be finite float32")
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)
