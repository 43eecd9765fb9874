"""Write a backbone into a folder that transformers and the Engine open, with a card that says where it is from."""

import copy
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForImageClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..backbones import Backbone, is_hub_id
from ..backbones.registry import DINOV3_LICENCE
from ..io.files import replace_folder, sync, tensors_written
from .network import StartingBackbone, load_folder
from .runfolder import DiskFull, load_newest_checkpoint


def write_model(folder: Path, module: PreTrainedModel, start: StartingBackbone, card: str, size: int = 224) -> Path:
    """Write a model folder in the place of `folder`, which stays unchanged until the new one is complete.

    Args:
        folder: To write; loads with `transformers.AutoModel.from_pretrained`.
        module: The backbone.
        start: Gives the normalisation.
        card: Content of README.md.
        size: Side of the classification crop that the preprocessor describes, px.

    Returns:
        The folder.

    Raises:
        DiskFull: It could not be written; the former folder is restored.
    """
    scratch = _scratch(folder)
    try:
        for leftover in (scratch, _former(folder)):
            shutil.rmtree(leftover, ignore_errors=True)
        _fill(scratch, module, start, card, size)
        replace_folder(scratch, folder)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise DiskFull(f"{folder} could not be written ({error}); free some space and resume the run") from error
    return folder


def write_classifier(
    folder: Path, start: StartingBackbone, weight: Tensor, bias: Tensor, class_names: list[str], size: int = 224
) -> Path | None:
    """Write a folder that transformers' `AutoModelForImageClassification` and its pipeline open.

    Args:
        folder: To write.
        start: With the trained backbone.
        weight: Of the classifier, (C, D), on class tokens.
        bias: (C,).
        class_names: In the order of the rows.
        size: Side of the classification crop, px.

    Returns:
        The folder, or None for a family for which transformers has no classifier.

    Raises:
        DiskFull: It could not be written.
    """
    config = copy.deepcopy(start.module.config)
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: i for i, name in enumerate(class_names)}
    try:
        model = AutoModelForImageClassification.from_config(config)
    except ValueError:
        return None
    model.base_model.load_state_dict(start.module.state_dict(), strict=False)  # all but the mask token
    with torch.no_grad():
        model.classifier.weight.zero_()  # DINOv2's also takes the mean of the patches, which was not trained
        model.classifier.weight[:, : weight.shape[1]] = weight
        model.classifier.bias.copy_(bias)
    card = f"A classifier of {len(class_names)} classes: {', '.join(class_names)}.\n"
    return write_model(folder, model, start, card, size)


def restore(folder: Path) -> None:
    """Restore the former folder where a killed process left none."""
    former = _former(folder)
    if former.is_dir() and not folder.exists():
        former.replace(folder)


def _scratch(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _former(folder: Path) -> Path:
    """Return where `replace_folder` keeps the folder that it replaces."""
    return folder.with_name(f".{folder.name}.new.former")


def export_run(run: Path, out: Path, which: str = "best") -> Path:
    """Write one of a run's backbones to another folder and return it.

    Args:
        run: Folder of the run.
        out: To write; must not exist.
        which: "best" (as in export/: never worse than the start), "last" (the newest teacher) or "start".

    Raises:
        ValueError: `which` is unknown, `out` exists, or the run has no such backbone.
    """
    sources = {"best": run / "export", "start": run / "checkpoints" / "start", "last": run / "export"}
    if which not in sources:
        raise ValueError(f'which must be "best", "last" or "start", got {which!r}')
    if out.exists():
        raise ValueError(f"{out} exists already; choose another folder")
    if not (sources[which] / "config.json").is_file():
        raise ValueError(f"{run} holds no {sources[which].relative_to(run)}; is it the folder of a run that has begun?")
    if which != "last":
        return Path(shutil.copytree(sources[which], out))
    start, state = load_folder(sources["start"]), load_newest_checkpoint(run / "checkpoints")
    if state is None:
        raise ValueError(f"{run} holds no checkpoint; there is no teacher but the start yet")
    load_result(start.module, state["ssl"])
    card = (sources["last"] / "README.md").read_text(encoding="utf-8")
    return write_model(out, start.module, start, f"{card}\nThis is the last teacher, of step {state['step']}.\n")


def teacher_backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the teacher's backbone from the "ssl" entry of a checkpoint."""
    prefix = "teacher.backbone."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def load_result(module: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Load a checkpoint's result into the starting backbone; a tail alone leaves the blocks below as they are.

    Args:
        module: The starting backbone.
        weights: The "ssl" entry of a checkpoint.
    """
    module.load_state_dict({**module.state_dict(), **teacher_backbone(weights)})


def model_card(backbone: Backbone, sentence: str, settings: str, method: str) -> str:
    """Return the README of an exported model, with the hub's fields; local folders are not named.

    Args:
        backbone: The start.
        sentence: The verdict.
        settings: Of the run, as JSON.
        method: How it was trained, completing the sentence "Trained ...".
    """
    name = Path(backbone.name).name
    # only what is on the hub can be its base model there
    base = backbone.hub_id or (backbone.name if is_hub_id(backbone.name) and not Path(backbone.name).exists() else None)
    fields = ["library_name: transformers", *([f"base_model: {base}"] if base else []), *_licence_fields(backbone)]
    head = "\n".join([*fields, "tags: [fine-tuned, dino]"])
    return f"""---
{head}
---
# {name}, continued on photos of one's own

{sentence}

Trained {method} from
`{name}` (licence: {backbone.licence}) by dinodemo.

```python
from transformers import AutoModel
model = AutoModel.from_pretrained("path/to/this/folder")
```

<details><summary>Settings</summary>

```json
{settings.strip()}
```
</details>
"""


def _licence_fields(backbone: Backbone) -> list[str]:
    """Return the card's licence in the hub's own words; the result has the licence of its start."""
    if backbone.licence.startswith("Apache-2.0"):
        return ["license: apache-2.0"]
    if backbone.licence == DINOV3_LICENCE:
        return [
            "license: other",
            "license_name: dinov3-license",
            "license_link: https://ai.meta.com/resources/models-and-libraries/dinov3-license",
        ]
    return ["license: unknown"]


def _fill(folder: Path, module: PreTrainedModel, start: StartingBackbone, card: str, size: int) -> None:
    config = copy.deepcopy(module.config)
    config.drop_path_rate = 0.0
    state = {name: value.detach().float().cpu().contiguous() for name, value in module.state_dict().items()}
    transformers_logging.disable_progress_bar()
    original, module.config = module.config, config
    try:
        with tensors_written(folder):
            module.save_pretrained(folder, state_dict=state)
    finally:
        module.config = original
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size * 8 // 7},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(start.mean),
        "image_std": list(start.std),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
