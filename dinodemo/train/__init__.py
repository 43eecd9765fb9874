"""The self-supervised training core: DINO, iBOT and KoLeo on a folder of one's own, from a released backbone."""

from .config import FinetuneConfig

__all__ = ["FinetuneConfig", "evaluate_knn", "export_run", "train"]

_HOMES = {"train": "session", "evaluate_knn": "standalone", "export_run": "export"}


def __getattr__(name: str):
    # these pull in torch and transformers; settings can be read and checked without them
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
