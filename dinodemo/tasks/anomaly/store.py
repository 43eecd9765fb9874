"""A learned set as one safetensors file: the memory, the scale, small copies of the good photos, and a card."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...backbones.identity import Identity, check
from ...io.files import plural
from ...io.images import DAMAGE, load_image
from .foreground import Foreground
from .memory import Space

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from .detector import AnomalyDetector

FORMAT = "dinodemo anomaly set 2"
MAX_FILE_BYTES = 400_000_000  # 50,000 patches of 128 numbers and 100 small photos have about 20 MB
PARAMETERS = ("resolution", "augment", "foreground", "layers", "max_patches")
ARRAYS = ("memory", "owner", "place", "mean", "basis", "good_scores", "thumbs", "thumb_ends")


def card_of(detector: "AnomalyDetector") -> dict[str, Any]:
    """Return the card of a fitted detector."""
    settings = {name: getattr(detector, name) for name in PARAMETERS}
    found = detector.foreground_
    return {
        "format": FORMAT,
        "backbone": detector.backbone_,
        "identity": detector.engine.identity.to_json(),
        **settings,
        "resolution_used": detector.resolution_,
        "layers": None if detector.layers is None else list(detector.layers),
        "names": list(detector.names_),
        "patches": len(detector.memory_),
        "line": float(detector.line_),
        "threshold": None if found is None else float(found.threshold),
        "warnings": list(detector.warnings_),
        "note": f"Learned from {plural(len(detector.names_), 'good photo')} with {detector.backbone_}.",
    }


def pack(detector: "AnomalyDetector") -> bytes:
    """Return a fitted detector as safetensors: float16 memory, and its card in the metadata."""
    from safetensors.numpy import save

    thumbs = [_jpeg(thumb) for thumb in detector.thumbs_]
    arrays = {
        "memory": detector.memory_.astype(np.float16),
        "owner": detector.owner_.astype(np.int32),
        "place": detector.location_.astype(np.float32),
        "mean": detector.space_.mean,
        "basis": detector.space_.basis,
        "good_scores": detector.good_scores_.astype(np.float32),
        "thumbs": np.frombuffer(b"".join(thumbs), np.uint8),
        "thumb_ends": np.cumsum([len(thumb) for thumb in thumbs]).astype(np.int64),
    }
    if detector.foreground_ is not None:
        arrays |= {"front_mean": detector.foreground_.mean, "front_axis": detector.foreground_.axis}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(arrays, {"card": json.dumps(card_of(detector), allow_nan=False)})


def unpack(kind: type["AnomalyDetector"], path: Path, engine: "Engine") -> "AnomalyDetector":
    """Read what `pack` wrote; raises ValueError for any other file, or when other weights made it."""
    from safetensors import SafetensorError

    try:
        card, arrays = _read(path)
        _check(card, arrays)
        thumbs = _thumbs(arrays["thumbs"], arrays["thumb_ends"], len(card["names"]))
    except (SafetensorError, *DAMAGE) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path.name} is not a set of good photos saved by this app, or is damaged ({reason}); "
            "save or copy it again"
        ) from error
    check(Identity.from_json(card.get("identity")), engine.identity, "this set", "choose that backbone, or learn again")
    settings = {name: card[name] for name in PARAMETERS}
    detector = kind(engine, **{**settings, "layers": None if card["layers"] is None else tuple(card["layers"])})
    detector.memory_, detector.owner_ = arrays["memory"].astype(np.float32), arrays["owner"]
    detector.location_, detector.good_scores_ = arrays["place"], arrays["good_scores"]
    detector.space_ = Space(arrays["mean"], arrays["basis"])
    front = card["threshold"]
    detector.foreground_ = None if front is None else Foreground(arrays["front_mean"], arrays["front_axis"], front)
    detector.line_, detector.warnings_ = card["line"], card["warnings"]
    detector.resolution_ = card["resolution_used"]
    detector.names_, detector.thumbs_, detector.backbone_ = card["names"], thumbs, card["backbone"]
    return detector


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    from safetensors import safe_open

    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with safe_open(path, "numpy") as file:
        card = json.loads((file.metadata() or {})["card"])
        return card, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check(card: dict, arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError, or what a wrong type raises, unless card and arrays fit together."""
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f'its card does not say "{FORMAT}"')
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    (count, k), (width,) = arrays["memory"].shape, arrays["mean"].shape
    shapes = {"owner": (count,), "place": (count, 2), "basis": (width, k)}
    if card["threshold"] is not None:
        shapes["front_axis"] = arrays["front_mean"].shape
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
    if wrong or not count:
        raise ValueError(f"its array {(wrong or ['memory'])[0]} has the wrong shape")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("its numbers are not all finite")
    if any(name not in card for name in PARAMETERS):
        raise ValueError("its card does not tell how it was learned")
    layers = [] if card["layers"] is None else card["layers"]
    if not isinstance(layers, list) or not all(isinstance(layer, int) for layer in layers):
        raise ValueError("its layers are damaged")
    texts = [card["backbone"], *card["names"], *card["warnings"]]
    if not all(isinstance(text, str) for text in texts) or not np.isfinite(card["line"]) or card["line"] <= 0:
        raise ValueError("its card is damaged")
    if not isinstance(card["resolution_used"], int) or not 14 <= card["resolution_used"] <= 16384:
        raise ValueError("its resolution is damaged")
    if arrays["owner"].min() < 0 or arrays["owner"].max() >= len(card["names"]):
        raise ValueError("its patches belong to photos that are not there")


def _jpeg(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _thumbs(content: np.ndarray, ends: np.ndarray, count: int) -> list[np.ndarray]:
    if len(ends) != count:
        raise ValueError("its small photos are not as many as its names")
    starts = [0, *ends[:-1].tolist()]
    return [load_image(content[start:end].tobytes()) for start, end in zip(starts, ends.tolist(), strict=True)]
