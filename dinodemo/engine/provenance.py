"""Which network made a result: the words that go into every download."""

import os

from ..backbones import BACKBONES
from ..backbones.identity import Identity
from .features import Features


def made_with(features: Features) -> str:
    """Return a sentence that names the backbone and the weights that made a result; goes into every download."""
    return made_with_name(features.backbone, features.identity)


def made_with_name(backbone: str, identity: Identity | None = None) -> str:
    """Return the same from a backbone's name.

    Args:
        backbone: The name.
        identity: Of what ran (`Engine.identity`), where it is at hand.
    """
    row, name = BACKBONES.get(backbone), short_name(backbone)
    details = [] if identity is None else [identity.run and f"run {identity.run}", identity.revision]
    words = ", ".join(part for part in details if part)
    weights = f", weights sha256 {identity.sha256}" if identity and identity.sha256 else ""
    return f"Made by dinodemo with {name}{f' ({words})' if words else ''}{weights}. {row.notice if row else ''}".strip()


def short_name(backbone: str) -> str:
    """Return a backbone's name without the server's folders."""
    return os.path.basename(backbone) if os.path.isabs(backbone) else backbone
