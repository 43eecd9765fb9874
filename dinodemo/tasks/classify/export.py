"""A classifier for other programs: a folder for transformers, or one ONNX graph of backbone and classifier."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones.network import load_module, read_normalisation
from ...io.files import replace_folder, whole_file, write_json
from ..retrieval.descriptor import input_side
from .heads import NEIGHBOURS, TEMPERATURE, LinearHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .classifier import PhotoClassifier

CLASSIFIERS = {  # a network's model type -> the class of transformers, and which tokens its classifier sees
    "dinov2": ("Dinov2ForImageClassification", "both"),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", "both"),
    "vit": ("ViTForImageClassification", "cls"),
}
TOLERANCE = 1e-3  # largest absolute difference of probabilities to PyTorch
OPSET = 18
BICUBIC = 3  # of PIL


class WholeNetwork(nn.Module):
    """Backbone and classifier in one: pixels in, logits out. The backbone is a copy in float32."""

    def __init__(self, classifier: PhotoClassifier):
        from ...backbones.adapter import adapter_of

        super().__init__()
        self.backbone: Any = _fresh_backbone(classifier)
        self.adapter = adapter_of(self.backbone)
        self.tokens, self.temperature = classifier.plan_.tokens, classifier.temperature_
        self.head = _TorchHead(classifier.head_, len(classifier.classes_))
        _fix_positions(self.backbone, _side(classifier))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits (B, C), whose softmax are the probabilities, of normalised pixels (B, 3, S, S)."""
        output = self.backbone(pixel_values=pixel_values, **self.adapter.call_options)
        cls, _, patches = self.adapter.split(output.last_hidden_state)
        parts = {"cls": [cls], "mean": [patches.mean(dim=1)], "both": [cls, patches.mean(dim=1)]}[self.tokens]
        return self.head(torch.cat(parts, dim=1)) / self.temperature


class _TorchHead(nn.Module):
    """A fitted head in torch, which gives log probabilities up to a constant."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    matrix: Tensor
    gallery: Tensor
    codes: Tensor

    def __init__(self, head: object, classes: int):
        super().__init__()
        self.classes, self.linear = classes, isinstance(head, LinearHead)
        names = ("weight", "bias") if isinstance(head, LinearHead) else ("mean", "matrix", "gallery", "codes")
        for name in names:
            self.register_buffer(name, torch.from_numpy(np.array(getattr(head, name))))

    def forward(self, features: Tensor) -> Tensor:
        if self.linear:
            return features @ self.weight.T + self.bias
        rows = nn.functional.normalize(nn.functional.normalize(features, dim=1) - self.mean, dim=1) @ self.matrix
        cosines = nn.functional.normalize(rows, dim=1) @ self.gallery.T
        cosine, nearest = cosines.topk(min(NEIGHBOURS, len(self.gallery)), dim=1)
        one_hot = nn.functional.one_hot(self.codes, self.classes).to(cosine.dtype)[nearest]  # (B, k, C)
        votes = (((cosine - 1) / TEMPERATURE).exp()[:, :, None] * one_hot).sum(dim=1)
        return torch.log(votes / votes.sum(dim=1, keepdim=True) + 1e-9)


def export_folder(classifier: PhotoClassifier, out: str | Path) -> Path:
    """Write a folder that `transformers.AutoModelForImageClassification.from_pretrained` opens.

    Args:
        classifier: Nearest class mean or logistic regression, with its engine.
        out: The folder; must not exist.

    Raises:
        ValueError: For nearest neighbours, which no such model can hold, for networks that transformers has no
            classifier for, and when the folder exists.
    """
    import transformers

    classifier._check_fitted()
    engine, head, out = classifier.engine, classifier.head_, Path(out)
    if engine is None:
        raise ValueError("a classifier is exported together with its backbone; give it its engine")
    if not isinstance(head, LinearHead):
        raise ValueError(
            "nearest neighbours do not fit into AutoModelForImageClassification; export as ONNX, or fit with method "
            '"mean" or "logistic"'
        )
    backbone = _fresh_backbone(classifier)
    name, seen = CLASSIFIERS.get(backbone.config.model_type, ("", ""))
    if not name:
        raise ValueError(f"transformers has no classifier for {engine.backbone.name}; export as ONNX")
    if seen == "cls" and classifier.plan_.tokens != "cls":
        raise ValueError(f'{name} sees the class token alone; fit with tokens "cls", or export as ONNX')
    if out.exists():
        raise ValueError(f"{out} exists already; choose another folder")
    model = getattr(transformers, name)(_config(classifier, backbone.config)).eval()
    state = backbone.state_dict()
    if missing := sorted(set(model.base_model.state_dict()) - set(state)):
        raise RuntimeError(f"{name} needs {missing[0]}, which {engine.backbone.name} lacks; export as ONNX")
    model.base_model.load_state_dict(state, strict=False)
    with torch.no_grad():
        weight = _copied(head.weight, classifier, seen) / classifier.temperature_
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(head.bias / classifier.temperature_))
    _check_same(model, classifier)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        staged = Path(scratch) / "model"
        model.save_pretrained(staged)
        write_json(staged / "preprocessor_config.json", _preprocessor(classifier))
        (staged / "README.md").write_text(card(classifier), encoding="utf-8")
        replace_folder(staged, out)
    return out


def export_onnx(classifier: PhotoClassifier, out: str | Path) -> float:
    """Write backbone and classifier as one ONNX graph, and try it with ONNX Runtime.

    The input `pixel_values` is (batch, 3, S, S) float32, squashed to the classifier's resolution and normalised; the
    output `logits` is (batch, classes), whose softmax are the probabilities. Classes, resolution and normalisation are
    among the graph's properties.

    Args:
        classifier: With its engine.
        out: The file (.onnx).

    Returns:
        The largest absolute difference of a probability to PyTorch, on noise.

    Raises:
        RuntimeError: When ONNX Runtime is not installed, or the graph computes something else.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise RuntimeError('an ONNX graph is tried with ONNX Runtime: pip install "dinodemo[onnx]"') from error
    classifier._check_fitted()
    network, out = WholeNetwork(classifier).eval(), Path(out)
    side = _side(classifier)
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with whole_file(out, ".onnx") as part, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: what it got wrong is found by comparing
        torch.onnx.export(
            network,
            (pixels,),
            str(part),
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
        )
        graph = onnx.load(str(part))
        for key, value in _properties(classifier).items():
            entry = graph.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.save(graph, str(part))
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        expected = network(pixels[:1]).softmax(dim=1), network(pixels).softmax(dim=1)
        found = [session.run(["logits"], {"pixel_values": some.numpy()})[0] for some in (pixels[:1], pixels)]
        pairs = zip(found, expected, strict=True)
        difference = max(float((torch.from_numpy(a).softmax(dim=1) - b).abs().max()) for a, b in pairs)
        if not difference <= TOLERANCE:
            raise RuntimeError(f"the ONNX graph differs from PyTorch by {difference:.2g}; it is not kept")
    return difference


def card(classifier: PhotoClassifier) -> str:
    """Return a classifier's card as Markdown."""
    facts = classifier.card_
    rows = "\n".join(f"| {n} | {c} |" for n, c in zip(facts["classes"], facts["photos"], strict=True))
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: image-classification\n---\n\n# Classifier of "
        f"{len(facts['classes'])} classes\n\n{facts['summary']}\n\nBackbone {facts['backbone']}, photos squashed to "
        f"{facts['resolution']} px. Fitted with dinodemo.\n\n| class | photos |\n|---|---|\n{rows}\n"
    )


def _fresh_backbone(classifier: PhotoClassifier) -> PreTrainedModel:
    """Load the engine's backbone once more, in float32 on the CPU: the engine's own is in use."""
    from ...backbones import resolve

    if classifier.engine is None:
        raise ValueError("a classifier is exported together with its backbone; give it its engine")
    row, folder = resolve(classifier.engine.backbone.name)
    return load_module(row.name, folder).float().eval()


def _fix_positions(backbone: Any, side: int) -> None:
    """Compute the position embeddings of one size once: the exporter lacks the operation that some are resized by."""
    embeddings: Any = getattr(backbone, "embeddings", None)
    if not hasattr(embeddings, "interpolate_pos_encoding"):  # rotary positions
        return
    patch = backbone.config.patch_size
    tokens = torch.zeros(1, 1 + (side // patch) ** 2, backbone.config.hidden_size)
    with torch.no_grad():
        fixed = embeddings.interpolate_pos_encoding(tokens, side, side)
    embeddings.interpolate_pos_encoding = lambda *_: fixed


def _check_same(model: PreTrainedModel, classifier: PhotoClassifier) -> None:
    """Raise RuntimeError when a model of transformers says something else than the classifier."""
    side = _side(classifier)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    options = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
    with torch.inference_mode():
        ours = WholeNetwork(classifier).eval()(pixels).softmax(dim=1)
        theirs = model(pixels, **options).logits.softmax(dim=1)
    difference = float((ours - theirs).abs().max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the model of transformers differs by {difference:.2g}; export as ONNX")


def _config(classifier: PhotoClassifier, backbone: Any) -> Any:
    config = copy.deepcopy(backbone)
    names = [str(name) for name in classifier.classes_]
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    return config


def _copied(weight: np.ndarray, classifier: PhotoClassifier, seen: str) -> np.ndarray:
    """Return weights over the tokens that a classifier of transformers sees, with zeros for those not used."""
    tokens = classifier.plan_.tokens
    if tokens == seen:
        return weight
    zeros = np.zeros_like(weight)
    return np.concatenate([weight, zeros] if tokens == "cls" else [zeros, weight], axis=1)


def _preprocessor(classifier: PhotoClassifier) -> dict:
    mean, std = _normalisation(classifier)
    side = _side(classifier)
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": BICUBIC,
        "do_center_crop": False,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def _properties(classifier: PhotoClassifier) -> dict[str, str]:
    mean, std = _normalisation(classifier)
    return {
        "classes": json.dumps(classifier.classes_.tolist()),
        "image_mean": json.dumps(list(mean)),
        "image_std": json.dumps(list(std)),
        "side": str(_side(classifier)),
        "backbone": classifier.card_["backbone"],
        "identity": classifier.card_["identity"],
        "summary": classifier.card_["summary"],
        "made_by": "dinodemo classify",
    }


def _normalisation(classifier: PhotoClassifier) -> tuple:
    from ...backbones import resolve

    assert classifier.engine is not None
    return read_normalisation(resolve(classifier.engine.backbone.name)[1])


def _side(classifier: PhotoClassifier) -> int:
    assert classifier.engine is not None
    return input_side(classifier.resolution, classifier.engine.backbone.patch_size)
