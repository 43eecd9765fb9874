"""The self-supervised training core: DINO, iBOT and KoLeo on a folder of one's own, from a released backbone.

Read it in this order:

- run.py: a run from its start to its report; loop.py: its loop and one step; state.py: what a run holds and saves.
- ssl.py: student, teacher and one step's losses; heads.py, losses.py, optim.py (schedules, groups, unfreezing).
- data.py: photos; augment.py, colour.py, masking.py, loader.py: batches of crops and masks.
- evaluate.py, metrics.py, monitor.py: how good the teacher is, and what follows from that.
- config.py, rules.py: every setting; planning.py: what is decided before a run.
- network.py, export.py, runfolder.py: backbones and files, in and out; distributed.py: several processes.
- tail/: the quick way, the last blocks alone on cached activations.
"""

from .config import FinetuneConfig

__all__ = ["FinetuneConfig", "evaluate_knn", "export_run", "finetune", "train"]

# the public name `train` would hide a module of that name: a run is in run.py, its loop in loop.py
_HOMES = {
    "finetune": ("run", "finetune"),
    "train": ("run", "finetune"),
    "evaluate_knn": ("evaluate", "evaluate_knn"),
    "export_run": ("export", "export_run"),
}


def __getattr__(name: str):
    # these bring torch and transformers; settings can be read and checked without them
    if name in _HOMES:
        from importlib import import_module

        module, attribute = _HOMES[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
