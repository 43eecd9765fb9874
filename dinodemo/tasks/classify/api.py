"""The API's `classify`: a classifier from photos sent along, or one that was saved, asked about other photos."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...io.images import DAMAGE
from ...web.api_values import MOST_FILES, File, as_file, check_backbone, check_strs, name_of, read_files, read_path
from . import draw

if TYPE_CHECKING:
    from ...web.services import Services
    from .classifier import PhotoClassifier
    from .gathered import Gathered

RESOLUTION = 224


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (ClassifyApi(services).classify,)


@dataclass(frozen=True)
class ClassifyApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"

    def classify(
        self,
        photos: list[File],
        examples: list[File] | None = None,
        labels: list[str] | None = None,
        model: File | None = None,
        method: str = draw.METHOD.default,
        tokens: str = draw.TOKENS.default,
        backbone: str = "",
    ) -> tuple[File, File, dict]:
        """Classify photos by labelled examples sent along, or by a classifier that was saved.

        Returns the answers (.csv: path, label, probability), the classifier (.safetensors), and a summary: the answers
        with the probability of each class, how far the classifier is to be trusted, and what could not be read.

        Parameters:
            photos: 1 to 50 photos to classify
            examples: up to 50 labelled photos, of two classes or more
            labels: the class of each example, in their order
            model: instead of examples: a classifier that the page, this function or `dinodemo classify fit` made
            method: auto (chosen by cross-validation), mean, knn or logistic
            tokens: auto, cls, mean (of the patches) or both
            backbone: of a new classifier; a name that `dinodemo weights list` tells, empty is the server's own
        """
        method, tokens = draw.METHOD.check(method), draw.TOKENS.check(tokens)
        asked = read_files(photos, "photos", MOST_FILES, 1)
        shown, names = read_files(examples, "examples", MOST_FILES), check_strs(labels, "labels")
        if bool(shown) == bool(model):
            raise ValueError("send either labelled examples or a classifier as model")
        if len(shown) != len(names):
            raise ValueError(f"each example needs its label; got {len(shown)} examples and {len(names)} labels")
        if model:
            classifier = self._load(read_path(model, "model"))
        else:
            classifier = self._fit(shown, names, method, tokens, backbone)
        found, left_out = self._read(classifier, asked, [""] * len(asked))
        answers = classifier.predict_tokens(found.tokens()) if len(found) else []
        rows = draw.answers_table(found.names, answers)
        classes = classifier.classes_.tolist()
        summary = {
            "answers": [
                {
                    "photo": name,
                    "label": one.label,
                    "probability": round(one.probability, 4),
                    "unlike_all": one.is_unknown,
                    "probabilities": dict(zip(classes, one.probabilities.round(4).tolist(), strict=True)),
                }
                for name, one in zip(found.names, answers, strict=True)
            ],
            "classifier": about(classifier),
            "identity": json.loads(classifier.card_["identity"] or "null"),
            "note": getattr(classifier, "doubt_", ""),
            "left_out": left_out,
        }
        return as_file(draw.answers_csv(rows)), as_file(("classifier.safetensors", saved(classifier))), summary

    def _fit(self, shown: list[File], names: list[str], method: str, tokens: str, backbone: str) -> "PhotoClassifier":
        from .classifier import PhotoClassifier

        name, _ = check_backbone(self.services, backbone, RESOLUTION)
        classifier = PhotoClassifier(self.services.pool.get(name), method, tokens)
        found, left_out = self._read(classifier, shown, names)
        if left_out:
            raise ValueError(f"example {left_out[0]['photo']} cannot be read: {left_out[0]['reason']}")
        return classifier.fit_tokens(found.tokens(), found.labels)

    def _load(self, path: Path) -> "PhotoClassifier":
        from .classifier import PhotoClassifier

        made_with = PhotoClassifier.load(path).card_["backbone"]
        name, _ = check_backbone(self.services, made_with if made_with != self.services.start.name else "", RESOLUTION)
        return PhotoClassifier.load(path, self.services.pool.get(name))

    def _read(self, classifier: "PhotoClassifier", files: list[File], labels: list[str]) -> "tuple[Gathered, list]":
        from ..retrieval.sources import Item
        from .gathered import gather

        paths = [read_path(file, f"photo {i}") for i, file in enumerate(files, start=1)]
        named = [f"{i}/{name_of(file, path)}" for i, (file, path) in enumerate(zip(files, paths, strict=True), start=1)]
        items = [Item(name, path.read_bytes, only_here=True) for name, path in zip(named, paths, strict=True)]
        found = gather(classifier, items, labels)
        return found, [{"photo": int(name.split("/")[0]), "reason": reason} for name, reason in found.problems]


def about(classifier: "PhotoClassifier") -> dict:
    """Return a classifier's card without folders of the server."""
    name = classifier.card_["backbone"]
    shown = os.path.basename(name) if os.path.isabs(name) else name
    return {k: v for k, v in classifier.card_.items() if k != "identity"} | {"backbone": shown}


def saved(classifier: "PhotoClassifier") -> bytes:
    """Return a classifier's file.

    Raises:
        RuntimeError: When it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            return classifier.save(Path(folder) / "classifier.safetensors").read_bytes()
    except DAMAGE as error:
        raise RuntimeError(f"the classifier cannot be written ({error}); free some space") from error
