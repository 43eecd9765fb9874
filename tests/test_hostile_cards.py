"""Saved sets of good photos and classifiers with cards and arrays that nobody saved: a sentence, or a sound object."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from dinodemo.tasks.anomaly import AnomalyDetector
from dinodemo.tasks.classify import PhotoClassifier
from dinodemo.tasks.classify import draw as classify_draw
from dinodemo.web.errors import is_expected

WRONG = (None, -1, 0, 10**12, -0.5, float("nan"), True, "", "x", "[" * 50_000, [], [None], ["x"], [[1]], {}, {"a": 1})
CHANGES = {
    "empty": lambda array: array[:0],
    "flat": lambda array: array.reshape(-1),
    "one more axis": lambda array: array[None],
    "bytes": lambda array: array.astype(np.int8),
    "below zero": lambda array: array.astype(np.int64) - 10**9,
    "beyond": lambda array: array.astype(np.int64) + 10**9,
    "not finite": lambda array: array.astype(np.float32) * np.nan,
}


@pytest.fixture
def photos(make_picture):
    return [make_picture(seed=i) for i in range(6)]


@pytest.fixture(params=["set", "mean", "knn"])
def saved(request, engine, photos, tmp_path):
    """Give a saved object and who reads it, as the page does."""
    path = tmp_path / "saved.safetensors"
    if request.param == "set":
        detector = AnomalyDetector(engine, resolution=70).fit(photos)
        detector.save(path)

        def read(file: Path) -> None:
            AnomalyDetector.load(file, engine).predict(photos[0])

        return path, read
    PhotoClassifier(engine, request.param, resolution=70).fit(photos, list("ababab")).save(path)

    def load(file: Path) -> None:
        backbone = PhotoClassifier.load(file).card_["backbone"]
        assert isinstance(backbone, str)
        classifier = PhotoClassifier.load(file, engine)
        classify_draw.summary(classifier)
        classifier.predict([photos[0]])

    return path, load


def content_of(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["card"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def variants(card: dict, arrays: dict[str, np.ndarray]):
    """Yield (what was done, card, arrays): one value of the card or one array changed."""
    for key in card:
        yield f"without {key}", {k: v for k, v in card.items() if k != key}, arrays
        yield from ((f"{key}: {value!r:.20}", card | {key: value}, arrays) for value in WRONG)
        if isinstance(card[key], list) and card[key]:
            yield from ((f"{key}[0]: {v!r:.20}", card | {key: [v, *card[key][1:]]}, arrays) for v in WRONG)
    for name, array in arrays.items():
        yield f"no array {name}", card, {k: v for k, v in arrays.items() if k != name}
        for how, change in CHANGES.items():
            with np.errstate(all="ignore"):
                yield f"{name} {how}", card, arrays | {name: np.ascontiguousarray(change(array))}


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_nobody_saved_is_a_sentence(saved, tmp_path):
    path, read = saved
    read(path)
    wrong, refused = [], 0
    for how, card, arrays in variants(*content_of(path)):
        save_file(arrays, tmp_path / "changed.safetensors", {"card": json.dumps(card)})
        try:
            read(tmp_path / "changed.safetensors")
        except Exception as error:
            refused += 1
            if not is_expected(error):
                wrong.append(f"{how}: {type(error).__name__}: {str(error)[:100]}")
    assert wrong == [] and refused > 100
