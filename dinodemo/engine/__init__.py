"""The inference engine: pictures in, `Features` out."""

from .features import Features

__all__ = ["Engine", "EnginePool", "Features"]


def __getattr__(name: str):
    # the engine brings torch; the page is served before that is needed
    if name == "Engine":
        from .engine import Engine

        return Engine
    if name == "EnginePool":
        from .pool import EnginePool

        return EnginePool
    raise AttributeError(f"module 'dinodemo.engine' has no attribute {name!r}")
