"""dinodemo: look at, use and adapt self-supervised vision features on one's own pictures."""

from .engine.features import Features

__all__ = ["Engine", "Features", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # Engine pulls in torch; `import dinodemo` stays quick for those who only want images or weights
    if name == "Engine":
        from .engine.engine import Engine

        return Engine
    raise AttributeError(f"module 'dinodemo' has no attribute {name!r}")
