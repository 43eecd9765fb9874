"""Which network made a result: the words that go into every download."""

import os

from ..backbones import BACKBONES
from .features import Features


def made_with(features: Features) -> str:
    """Tell in a sentence which backbone made a result; goes into every download."""
    return made_with_name(features.backbone)


def made_with_name(backbone: str) -> str:
    """Tell the same from a backbone's name."""
    row = BACKBONES.get(backbone)
    name = os.path.basename(backbone) if os.path.isabs(backbone) else backbone  # no folders of the server
    return f"Made by dinodemo with {name}. {row.notice if row else ''}".strip()
