"""The self-supervised training core: DINO, iBOT and KoLeo on a folder of one's own, from a released backbone."""

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
